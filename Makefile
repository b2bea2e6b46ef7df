# make demo   a share goes through an outage before your eyes, in a VM
# make test   everything
# make bench  nasmount and today's ways through the same outages, in a VM: tables, target/bench/bench.{md,json,svg}
# make install / uninstall   PREFIX=/usr/local DESTDIR=

PREFIX ?= /usr/local
DESTDIR ?=
BINDIR = $(PREFIX)/bin
UNITDIR = $(PREFIX)/lib/systemd/system
PROFILEDIR = $(PREFIX)/share/nasmount/profiles
GENERATORDIR = $(PREFIX)/lib/systemd/system-generators
# Where mount(8) looks for its helpers, whatever the prefix.
HELPERDIR = /sbin
DBUSDIR = /usr/share/dbus-1/system.d
TMPFILESDIR = /usr/lib/tmpfiles.d
MANDIR = $(PREFIX)/share/man/man1
# Where each shell looks for completions.
BASHDIR = $(PREFIX)/share/bash-completion/completions
ZSHDIR = $(PREFIX)/share/zsh/site-functions
FISHDIR = $(PREFIX)/share/fish/vendor_completions.d

UNITS = nasmount.service nasmount-barrier.service nasmount-resume-all.service nasmount-wait@.service

.PHONY: build release demo bench test images check unit vm vm-trixie vm-bookworm vm-forky install uninstall clean

build:
	cargo build --locked

release:
	cargo build --locked --release

demo: build
	cargo test --locked --test vm -- --run demo

# The build that people run; BENCH_OUTAGE, BENCH_QUIET (seconds) and BENCH_RUNS shorten it.
bench: release
	cargo test --locked --release --test vm -- --run bench

test: images check unit vm

# The VMs' images are made while the compiler works. Each suite waits for its own, and makes it, or says why it cannot, if this did not.
images:
	@mkdir -p target/vm
	@{ tests/vm/image.sh trixie; tests/vm/image.sh bookworm; } >target/vm/images.log 2>&1 &

check:
	cargo fmt --all --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items --quiet

unit:
	cargo test --locked

# Side by side: an emulated machine that waits for a time-out leaves the processor to the other.
vm: build
	cargo test --locked --test vm --no-run
	$(MAKE) --no-print-directory -j2 vm-trixie vm-bookworm

# vm-forky: all cases on the Debian to come, with its kernel, and beside firewalld, Docker and NetworkManager; not in `test`, as it is
# another one each day.
vm-trixie vm-bookworm vm-forky: vm-%: build
	SUITE=$* cargo test --locked --test vm -- --run

install:
	install -D -m 0755 target/release/nasmount $(DESTDIR)$(BINDIR)/nasmount
	for unit in $(UNITS); do \
	  install -D -m 0644 systemd/$$unit $(DESTDIR)$(UNITDIR)/$$unit && \
	  sed -i 's|@BINDIR@|$(BINDIR)|' $(DESTDIR)$(UNITDIR)/$$unit || exit 1; \
	done
	install -d -m 0755 $(DESTDIR)$(GENERATORDIR) $(DESTDIR)$(HELPERDIR)
	ln -sfn $(BINDIR)/nasmount $(DESTDIR)$(GENERATORDIR)/nasmount-generator
	ln -sfn $(BINDIR)/nasmount $(DESTDIR)$(HELPERDIR)/mount.nasmount
	install -D -m 0644 systemd/io.nasmount.NasMount1.conf $(DESTDIR)$(DBUSDIR)/io.nasmount.NasMount1.conf
	install -D -m 0644 systemd/nasmount.tmpfiles $(DESTDIR)$(TMPFILESDIR)/nasmount.conf
	install -d -m 0755 $(DESTDIR)$(PROFILEDIR) $(DESTDIR)/etc/nasmount/conf.d
	install -m 0644 profiles/*.toml $(DESTDIR)$(PROFILEDIR)
	install -d -m 0755 $(DESTDIR)$(MANDIR) $(DESTDIR)$(BASHDIR) $(DESTDIR)$(ZSHDIR) $(DESTDIR)$(FISHDIR)
	target/release/nasmount man $(DESTDIR)$(MANDIR)
	target/release/nasmount completions bash >$(DESTDIR)$(BASHDIR)/nasmount
	target/release/nasmount completions zsh >$(DESTDIR)$(ZSHDIR)/_nasmount
	target/release/nasmount completions fish >$(DESTDIR)$(FISHDIR)/nasmount.fish
	@if [ -z "$(DESTDIR)" ]; then systemctl daemon-reload && busctl call org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus ReloadConfig; fi

# Takes shares and barriers off this host first; the configuration in /etc/nasmount stays.
uninstall:
	@if [ -z "$(DESTDIR)" ]; then \
	  systemctl disable --now nasmount.service; \
	  { $(BINDIR)/nasmount resume-all && $(BINDIR)/nasmount clear; } || exit 1; \
	  systemctl stop nasmount-barrier.service; \
	fi
	for unit in $(UNITS); do rm -f $(DESTDIR)$(UNITDIR)/$$unit; done
	rm -f $(DESTDIR)$(GENERATORDIR)/nasmount-generator $(DESTDIR)$(HELPERDIR)/mount.nasmount
	rm -f $(DESTDIR)$(BINDIR)/nasmount $(DESTDIR)$(DBUSDIR)/io.nasmount.NasMount1.conf $(DESTDIR)$(TMPFILESDIR)/nasmount.conf
	rm -rf $(DESTDIR)$(PREFIX)/share/nasmount
	rm -f $(DESTDIR)$(MANDIR)/nasmount.1 $(DESTDIR)$(MANDIR)/nasmount-*.1
	rm -f $(DESTDIR)$(BASHDIR)/nasmount $(DESTDIR)$(ZSHDIR)/_nasmount $(DESTDIR)$(FISHDIR)/nasmount.fish
	@if [ -z "$(DESTDIR)" ]; then systemctl daemon-reload; fi

clean:
	cargo clean
