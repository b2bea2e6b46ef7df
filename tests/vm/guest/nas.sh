#!/bin/bash
# nas.sh up N...        start NAS N (1..9): Samba in the network namespace nasN at 10.99.N.2
# nas.sh down N...      stop it and remove everything of it
# nas.sh cut N KIND     begin an outage; prints the guest's uptime right before it and that at which it was complete
# nas.sh heal N KIND    end it; prints the uptime
# nas.sh change N WHAT  what the NAS's administrator does while clients are connected
#
# KIND   what the client sees
# link   no carrier, nothing answers: the cable was pulled
# drop   carrier and ARP are fine, TCP to port 445 is swallowed: a firewall, a router far away
# kill   RST, then "connection refused": the server's processes died
# hang   TCP connects and acknowledges, nobody answers: the server's processes are stopped
# slow   everything works, 500 ms late
# power  silence, and the server has forgotten every connection when it returns
#
# WHAT
# remove, restore      the share media is not there any more, and closed on those who use it
# read-only, writable  the same share
# fill, empty          no space is left on the exports' file system
# password NTHASH      nasuser has another one; sessions go on
# disable, enable      nasuser may not log in any more
# lock, unlock         nasuser is locked out, as after too many wrong passwords
# private, open        secret is for those alone who encrypt
# skew, straight       a server an hour ahead greets whoever connects anew; nothing but greetings works
# recreate             the files of media are deleted and others made of the same names: handles are stale
# modern               nothing older than SMB 3.1.1 is spoken
# ancient, current     nothing newer than SMB 1 is
# strict, lenient      everything has to be signed
# miser                new connections go through one that can be told to give no credits
# starve, feed         and is told so, or not any more
# disconnect           the server ends the connections that there are, and takes new ones
# readdress            the NAS is at 10.99.N.3 now
# kerberos             it is nasN.nas.test of the realm NAS.TEST, for which keys of nasuser are in /run/nasuser.keytab
#
# The exports of NAS N are tmpfs directories, seen from the server's side in /srv/nasN/{media,secret}.
set -euo pipefail

readonly GUEST_DIR=$(dirname "$(readlink -f "$0")")
# NT hash of "pw1,with comma", the password of nasuser: written down because computing it (smbpasswd) takes seconds.
readonly NT_HASH=21FF60CD1905A2A6905477942E23410A
readonly SLOW_DELAY=500ms
readonly MISER=4450
readonly SKEW=4451

die() { echo "nas.sh: $*" >&2; exit 1; }
# No process is started for a moment: that alone takes longer than some of what is measured from there.
uptime_now() { local now; read -r now _ </proc/uptime; echo "$now"; }
# An outage begins now, unless it has: nobody can have seen anything of it before.
begun=
begins() { [ -n "$begun" ] || read -r begun _ </proc/uptime; }
in_nas() { ip netns exec "nas$1" "${@:2}"; }
# Every process in the namespace is a smbd: Samba names its children differently from version to version.
processes() { ip netns pids "nas$1"; }
# until_true CONDITION: the caller's limit (of the driver's command) bounds it.
until_true() { until "$@"; do sleep 0.05; done; }

write_config() {
  local n=$1 dir=/run/nas$1
  mkdir -p "$dir"/{lock,state,private,pid,cache,ncalrpc}
  # The date (LCT) must not be 0, which means "must change the password at the next login".
  printf 'nasuser:3000:%032d:%s:[UX         ]:LCT-65000000:\n' 0 "$NT_HASH" >"$dir/private/smbpasswd"
  chmod 600 "$dir/private/smbpasswd"
  cat >"$dir/smb.conf" <<CONF
[global]
 netbios name = NAS$n
 server role = standalone server
 map to guest = bad user
 passdb backend = smbpasswd:$dir/private/smbpasswd
 disable netbios = yes
 smb ports = 445
 load printers = no
 disable spoolss = yes
 log level = 0
 logging = file
 log file = $dir/log
 lock directory = $dir/lock
 state directory = $dir/state
 cache directory = $dir/cache
 private dir = $dir/private
 pid directory = $dir/pid
 ncalrpc dir = $dir/ncalrpc
 strict sync = yes
[media]
 path = /srv/nas$n/media
 guest ok = yes
 read only = no
 force user = root
[secret]
 path = /srv/nas$n/secret
 valid users = nasuser
 read only = no
CONF
}

start_server() {
  in_nas "$1" smbd -D --configfile="/run/nas$1/smb.conf" </dev/null >/dev/null
}

listens() { in_nas "$1" ss -Hltn "sport = $2" | grep -q "$2"; }
accepts() { listens "$1" 445; }
gone() { [ -z "$(processes "$1")" ]; }
forgotten() { ! in_nas "$1" ss -Htan 'sport = 445' | grep -q .; }

kill_server() {
  local pids
  pids=$(processes "$1")
  begins
  [ -z "$pids" ] || kill -KILL $pids 2>/dev/null || true
  until_true gone "$1"
}

# A process that forks while it is being stopped leaves a running child, so look again until all are stopped. No process is
# started for each: with several NASes that takes many seconds under TCG, and a server that is half stopped is none of the faults.
all_stopped() {
  local pid stat running=0
  for pid in $(processes "$1"); do
    { read -r stat <"/proc/$pid/stat"; } 2>/dev/null || continue
    [[ ${stat##*) } == T* ]] || { kill -STOP "$pid" 2>/dev/null || true; running=1; }
  done
  [ $running = 0 ]
}

up() {
  local n=$1
  [ ! -e "/run/netns/nas$n" ] || return 0
  mkdir -p "/srv/nas$n"
  mount -t tmpfs -o size=300m,mode=755 "nas$n" "/srv/nas$n"
  mkdir "/srv/nas$n"/{media,secret}
  chmod 777 "/srv/nas$n/media"
  chown nasuser "/srv/nas$n/secret"
  python3 "$GUEST_DIR/load.py" library "/srv/nas$n/media"
  ip netns add "nas$n"
  ip link add "nas$n" type veth peer name eth0 netns "nas$n"
  ip addr add "10.99.$n.1/24" dev "nas$n"
  ip link set "nas$n" up
  ip addr add "fd99:$n::1/64" dev "nas$n" nodad
  # A cable that is pulled leaves a machine its addresses; `ip link set down`, which stands for it here, would drop this one's.
  in_nas "$n" sysctl -q net.ipv6.conf.eth0.keep_addr_on_down=1
  in_nas "$n" ip addr add "10.99.$n.2/24" dev eth0
  in_nas "$n" ip addr add "fd99:$n::2/64" dev eth0 nodad
  in_nas "$n" ip link set lo up
  in_nas "$n" ip link set eth0 up
  write_config "$n"
  start_server "$n"
  until_true accepts "$n"
}

down() {
  local n=$1
  [ -e "/run/netns/nas$n" ] || return 0
  kill_server "$n"
  ip link del "nas$n"
  ip netns del "nas$n"
  umount -l "/srv/nas$n"
  rm -rf "/run/nas$n"
}

cut_power() {
  in_nas "$1" ip link set eth0 down
  kill_server "$1"
  # The kernel keeps the connections of dead processes; a machine without power does not.
  in_nas "$1" ss -K 'sport = 445' >/dev/null
  until_true forgotten "$1"
}

cut_fault() {
  # which processes to kill has to be found out first
  [ "$2" = kill ] || begins
  case $2 in
    link) in_nas "$1" ip link set eth0 down ;;
    drop) in_nas "$1" nft -f - <<<'table inet cut {
        chain i { type filter hook input priority 0; tcp dport 445 drop; }
        chain o { type filter hook output priority 0; tcp sport 445 drop; }
      }' ;;
    kill) kill_server "$1" ;;
    hang) until_true all_stopped "$1" ;;
    slow) in_nas "$1" tc qdisc add dev eth0 root netem delay "$SLOW_DELAY" ;;
    power) cut_power "$1" ;;
    *) die "unknown kind of fault: $2" ;;
  esac
}

heal_fault() {
  case $2 in
    link) in_nas "$1" ip link set eth0 up ;;
    drop) in_nas "$1" nft delete table inet cut ;;
    kill) start_server "$1"; until_true accepts "$1" ;;
    hang) kill -CONT $(processes "$1") ;;
    slow) in_nas "$1" tc qdisc del dev eth0 root ;;
    power) start_server "$1"; until_true accepts "$1"; in_nas "$1" ip link set eth0 up ;;
    *) die "unknown kind of fault: $2" ;;
  esac
}

# Samba reads its configuration anew by itself only now and then, and leaves those alone who use a share.
reconfigure() {
  sed -i "$2" "/run/nas$1/smb.conf"
  smbcontrol --configfile="/run/nas$1/smb.conf" smbd reload-config
  smbcontrol --configfile="/run/nas$1/smb.conf" smbd close-share media
}

change() {
  local export=/srv/nas$1
  case $2 in
    remove) reconfigure "$1" 's/^\[media\]/[removed]/' ;;
    restore) reconfigure "$1" 's/^\[removed\]/[media]/' ;;
    read-only) reconfigure "$1" '/^\[media\]/,/^\[secret\]/ s/read only = no/read only = yes/' ;;
    writable) reconfigure "$1" '/^\[media\]/,/^\[secret\]/ s/read only = yes/read only = no/' ;;
    fill) cat /dev/zero >"$export/filler" 2>/dev/null || true ;;
    empty) rm "$export/filler" ;;
    password) sed -i "s/^\(nasuser:3000:[0-9]*\):[0-9A-F]*:/\1:$3:/" "/run/nas$1/private/smbpasswd" ;;
    disable) sed -i 's/:\[UX /:[DUX/' "/run/nas$1/private/smbpasswd" ;;
    enable) sed -i 's/:\[DUX/:[UX /' "/run/nas$1/private/smbpasswd" ;;
    lock) sed -i 's/:\[UX /:[UXL/' "/run/nas$1/private/smbpasswd" ;;
    unlock) sed -i 's/:\[UXL/:[UX /' "/run/nas$1/private/smbpasswd" ;;
    private) reconfigure "$1" '/^\[secret\]/a\ smb encrypt = required' ;;
    open) reconfigure "$1" '/^ smb encrypt = required/d' ;;
    skew)
      in_nas "$1" "$GUEST_DIR/skew.py" "$SKEW" 3600 </dev/null >/dev/null 2>&1 &
      echo $! >"/run/nas$1/skew.pid"
      until_true listens "$1" "$SKEW"
      in_nas "$1" nft "table inet skew { chain p { type nat hook prerouting priority -100; tcp dport 445 redirect to :$SKEW; }; }"
      ;;
    straight)
      in_nas "$1" nft delete table inet skew
      kill "$(cat "/run/nas$1/skew.pid")"
      ;;
    recreate)
      rm -r "$export/media"
      mkdir -m 777 "$export/media"
      python3 "$GUEST_DIR/load.py" library "$export/media"
      ;;
    modern) reconfigure "$1" 's/^ smb ports = 445/&\n server min protocol = SMB3_11/' ;;
    ancient) reconfigure "$1" 's/^ smb ports = 445/&\n server max protocol = NT1\n server min protocol = NT1/' ;;
    current) reconfigure "$1" '/^ server m.* protocol = NT1/d' ;;
    strict) reconfigure "$1" 's/^ smb ports = 445/&\n server signing = mandatory/' ;;
    lenient) reconfigure "$1" '/^ server signing = mandatory/d' ;;
    miser)
      in_nas "$1" "$GUEST_DIR/miser.py" "$MISER" "/run/nas$1/starve" </dev/null >/dev/null 2>&1 &
      until_true listens "$1" "$MISER"
      in_nas "$1" nft "table inet miser { chain p { type nat hook prerouting priority -100; tcp dport 445 redirect to :$MISER; }; }"
      ;;
    starve) touch "/run/nas$1/starve" ;;
    feed) rm "/run/nas$1/starve" ;;
    disconnect)
      kill -KILL $(in_nas "$1" ss -Htnp state established 'sport = 445' | grep -o 'pid=[0-9]*' | cut -d= -f2 | sort -u)
      ;;
    readdress)
      in_nas "$1" ip addr del "10.99.$1.2/24" dev eth0
      in_nas "$1" ip addr add "10.99.$1.3/24" dev eth0
      ;;
    kerberos)
      "$GUEST_DIR/kdc.sh" "$1"
      kill_server "$1"
      # a realm of MIT's has no domain with groups to tell Samba of
      sed -i "s|^ smb ports = 445|&\n realm = NAS.TEST\n kerberos method = dedicated keytab\n dedicated keytab file = /run/nas$1/keytab\n gensec:require_pac = no|" \
        "/run/nas$1/smb.conf"
      start_server "$1"
      until_true accepts "$1"
      ;;
    *) die "unknown change: $2" ;;
  esac
}

case ${1:-} in
  up | down)
    command=$1; shift
    [ $# -gt 0 ] || die "$command: which NAS?"
    jobs=()
    for n; do "$command" "$n" & jobs+=($!); done
    for job in "${jobs[@]}"; do wait "$job"; done
    ;;
  cut) cut_fault "$2" "$3"; echo "$begun $(uptime_now)" ;;
  heal) heal_fault "$2" "$3"; uptime_now ;;
  change) change "${@:2}" ;;
  *) sed -n '2,35s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
