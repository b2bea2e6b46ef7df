//! A wrong password, a share that is not there, a mount point that is a file: said in `status`, and not tried again by themselves; only
//! the share is looked for now and then. One without its marker is not shown, and mounted by itself when the marker is there. A login can
//! be a credential of systemd's, plain or encrypted; no password gets into the journal or a recording.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::guest::{Guest, number};
use crate::nas::{self, Fault, Nas};
use crate::nasmount::{DEADLINE, Nasmount, ShareOf, barred, mount_point};

const CREDENTIALS: &str = "/etc/nasmount/case.cred";
/// The password of nasuser, and its NT hash.
const PASSWORD: &str = "pw1,with comma";
const HASH: &str = "21FF60CD1905A2A6905477942E23410A";
/// What it is changed to.
const OTHER_PASSWORD: &str = "pw2;after it";
const OTHER_HASH: &str = "98F5C5C98AA9FB14CB91537EFE8C0D9D";
/// The shares, and the class of the failure that blocks each.
const BLOCKED: [(&str, &str); 3] = [("secret", "credentials"), ("unknown", "missing"), (NO_DIRECTORY, "configuration")];
/// Its mount point is a file at first.
const NO_DIRECTORY: &str = "file";
/// A share that has a marker, and a limit and how much is read ahead, which nobody else asks for.
const MARKED: &str = "marked";
const MARKED_MORE: &str =
    "marker = \"here/.it is\"\ndirty_limit = \"160KiB\"\nread_ahead = \"768KiB\"\nprobe_interval = \"1s\"";
/// A daemon that hammers would try several times in so long.
const LENGTH: Duration = Duration::from_secs(12);

pub fn run(guest: &Guest) -> Result<String> {
    let [first, second] = nas::up(guest, [1, 2])?;
    guest.write_file(CREDENTIALS, "username=nasuser\npassword=wrong\n")?;
    guest.ok(&format!("chmod 600 {CREDENTIALS}"))?;
    let share = |name, nas, source, credentials| ShareOf {
        name,
        nas,
        source,
        more: if name == MARKED { MARKED_MORE } else { "" },
        probe: "",
        credentials,
        units: Vec::new(),
    };
    let shares = [
        share("secret", first, "secret", Some(CREDENTIALS)),
        share("unknown", second, "nothing-of-this-name", None),
        share(NO_DIRECTORY, second, "media", None),
        share(MARKED, second, "media", None),
    ];
    guest.ok(&format!("echo kept >{}", mount_point(NO_DIRECTORY)))?;
    let mut facts = Vec::new();
    let begun = guest.ok("date +%s.%N")?; // other cases have mounted the same shares in this boot
    let nasmount = Nasmount::start(guest, &shares)?;
    for (name, class) in BLOCKED {
        nasmount.wait_for_state(name, "blocked")?;
        let share = nasmount.share(name)?;
        ensure!(share["reason"]["failure"]["class"] == class, "the reason is {}", share["reason"]);
        ensure!(share["hint"].is_string(), "there is no hint: {share}");
        facts.push(format!("{name}: {}", share["reason_text"]));
        if name != NO_DIRECTORY {
            barred(guest, &mount_point(name), "ls,create")?;
        }
    }
    // what brings every other share back brings no new attempt
    let outage = first.cut(Fault::Link)?;
    outage.last(LENGTH)?;
    outage.heal()?;
    let trusted = "nasmount status secret --json | grep -q '\"trust\": \"trusted\"'";
    guest.wait_for("the server to be trusted again", DEADLINE, trusted)?;
    // and no new daemon either: it would only lock the account
    guest.ok("systemctl restart nasmount")?;
    for (name, _) in BLOCKED {
        nasmount.wait_for_state(name, "blocked").context("after a restart of the daemon")?;
    }
    let attempts = "grep -c 'Attempting to mount ..10.99.1.2.secret'"; // slashes, or backslashes on 6.1
    let attempts = guest.ok(&format!("journalctl -b -k --since @{begun} | {attempts}"))?;
    ensure!(attempts == "1", "the wrong password was tried {attempts} times");
    let said = guest.ok(&format!("journalctl -b --since @{begun} | grep -c 'wrong' || true"))?;
    ensure!(said == "0", "the password is in the journal");

    facts.push(logs_in(guest, &nasmount, first)?);
    is_given_by_systemd(guest, &nasmount)?;
    let mount_point = mount_point(NO_DIRECTORY);
    guest.ok(&format!("grep -qx kept {mount_point} && rm {mount_point} && nasmount mount {NO_DIRECTORY}"))?;
    nasmount.wait_for_state(NO_DIRECTORY, "online")?;
    comes_with_its_marker(guest, &nasmount, second)?;
    nasmount.remove()?;
    Ok(format!("{}; with the right password, without the file and with the marker they came online", facts.join("; ")))
}

/// A wrong login is tried once and not written, the right one brings the share back, and a changed one leaves it alone.
fn logs_in(guest: &Guest, nasmount: &Nasmount<'_>, nas: Nas<'_>) -> Result<String> {
    let log_in = |password: &str| {
        let output = guest.run(&format!("printf '%s\\n' '{password}' | nasmount login secret --stdin"))?;
        ensure!(!format!("{output:?}").contains(password), "the password is shown: {output:?}");
        Ok(output)
    };
    let file = || guest.ok(&format!("cat {CREDENTIALS}; stat -c '%a %U:%G' {CREDENTIALS}"));
    let attempts = || guest.ok("journalctl -b -k | grep -c 'Attempting to mount ..10.99.1.2.secret'");
    let (file_before, attempts_before) = (file()?, number(&attempts()?)?);
    let refused = log_in("wrong, too")?;
    ensure!(refused.code == 3 && refused.stderr.contains("another password"), "{refused:?}");
    ensure!(file()? == file_before, "a refused login was written: {}", file()?);
    let tried = number(&attempts()?)? - attempts_before;
    ensure!(tried == 1.0, "it was tried {tried} times");
    nasmount.wait_for_state("secret", "blocked")?;

    let taken = log_in(PASSWORD)?;
    ensure!(taken.code == 0 && taken.stderr.contains("secret: online"), "{taken:?}");
    ensure!(file()? == format!("username=nasuser\npassword={PASSWORD}\n600 root:root"), "{}", file()?);
    let since = nasmount.wait_for_state("secret", "online")?;
    nas.change(&format!("password {OTHER_HASH}"))?;
    let changed = log_in(OTHER_PASSWORD)?;
    let still = nasmount.wait_for_state("secret", "online")?;
    // from a wall clock, to the microsecond
    ensure!((still - since).abs() < 0.1, "it was not left alone: online since {still}, before since {since}");
    let fact = if guest.run("grep -q password2 /proc/fs/cifs/mount_params")?.code == 0 {
        ensure!(
            changed.code == 0 && changed.stderr.contains("secret: online, and knows the new password"),
            "{changed:?}"
        );
        goes_on_with_the_new_password(guest, nasmount, nas)?
    } else {
        ensure!(changed.code == 0 && changed.stderr.contains("nasmount remount secret"), "{changed:?}");
        guest.ok("nasmount remount secret").context("with the new password")?;
        "without password2 it is remounted".to_owned()
    };
    nas.change(&format!("password {HASH}"))?; // other cases use this NAS, too
    let said = guest.ok("journalctl -b | grep -ciE 'wrong, too|pw2;after it' || true")?;
    ensure!(said == "0", "a password is in the journal");
    Ok(fact)
}

/// The server ends the session, and refuses the password that it began with: once, and the mount that there was goes on.
fn goes_on_with_the_new_password(guest: &Guest, nasmount: &Nasmount<'_>, nas: Nas<'_>) -> Result<String> {
    let refusals = || number(&guest.ok("journalctl -b -k | grep -c STATUS_LOGON_FAILURE")?);
    // its device and options: the number of a mount that was taken off its path and put back is another one
    let path = mount_point("secret");
    let mount = format!("awk '$5 == \"{path}\" && / - cifs / {{ print $3; sub(/.* - /, \"\"); print }}'");
    let mounted = || guest.ok(&format!("{mount} /proc/self/mountinfo"));
    let holds = "journalctl -b -u nasmount | grep -c 'to=holding.*the share does not' || true";
    let (mount_before, refused_before, held_before) = (mounted()?, refusals()?, guest.ok(holds)?);
    let closed = guest.uptime()?;
    nas.change("disconnect")?;
    guest.wait_for("nasmount to find out", DEADLINE, &format!("[ $({holds}) -gt {held_before} ]"))?;
    let back = nasmount.wait_for_state("secret", "online")? - closed;
    let refused = refusals()? - refused_before;
    ensure!(refused == 1.0, "the old password was refused {refused} times");
    let now = mounted()?;
    ensure!(now == mount_before, "the mount was {mount_before}, and is {now}");
    guest.ok(&format!("ls {path}")).context("with the new password")?;
    Ok(format!("a session that ended was made anew with the new password within {back:.1} s, the old one refused once"))
}

/// The file that `credentials` named is gone; the share stays mounted while the daemon is restarted, and is mounted anew with the credential.
fn is_given_by_systemd(guest: &Guest, nasmount: &Nasmount<'_>) -> Result<()> {
    const LOGIN: &str = "/root/login";
    const DROP_IN: &str = "/etc/systemd/system/nasmount.service.d";
    const STORE: &str = "/etc/credstore.encrypted";
    guest.write_file(LOGIN, &format!("username=nasuser\npassword={PASSWORD}\n"))?;
    let named = "sed -i 's|^credentials = .*|credentials = \"systemd:nas\"|' /etc/nasmount/nasmount.toml";
    guest.ok(&format!("chmod 600 {LOGIN} && rm {CREDENTIALS} && {named} && nasmount check && mkdir -p {DROP_IN}"))?;
    let encrypt = format!(
        "mkdir -p -m 700 {STORE} && systemd-creds encrypt --with-key=host --name=nas {LOGIN} {STORE}/nas && rm {LOGIN} && \
         ! grep -q nasuser {STORE}/nas"
    );
    for (prepare, setting) in
        [("true", format!("LoadCredential=nas:{LOGIN}")), (&*encrypt, "LoadCredentialEncrypted=nas".to_owned())]
    {
        let drop_in = format!("printf '[Service]\\n{setting}\\n' >{DROP_IN}/login.conf");
        guest.ok(&format!("{prepare} && {drop_in} && systemctl daemon-reload && systemctl restart nasmount"))?;
        nasmount.wait_for_state("secret", "online").with_context(|| setting.clone())?;
        guest.ok("nasmount remount secret").with_context(|| setting.clone())?;
    }
    guest.ok(&format!("rm -r {DROP_IN} {STORE}/nas && systemctl daemon-reload"))?;
    let said = guest.ok(&format!("(journalctl -b; nasmount dump secret) | grep -cF '{PASSWORD}' || true"))?;
    ensure!(said == "0", "the password is in the journal, or in the recording");
    Ok(())
}

fn comes_with_its_marker(guest: &Guest, nasmount: &Nasmount<'_>, nas: Nas<'_>) -> Result<()> {
    // of one answer: it is tried again all the time
    let missing = format!(
        "said=$(nasmount status {MARKED} --json); grep -q 'cannot find the marker' <<<$said && grep -q '\"hint\": \"' <<<$said"
    );
    let (path, marker) = (mount_point(MARKED), format!("'{}/here/.it is'", nas.export("media")));
    guest.wait_for("the marker to be missed", DEADLINE, &missing)?;
    barred(guest, &path, "ls,create")?;
    guest.ok(&format!("mkdir {}/here && touch {marker}", nas.export("media")))?;
    nasmount.wait_for_state(MARKED, "online")?;
    guest.ok("grep -qx 768 /sys/class/bdi/cifs-*/read_ahead_kb").context("read_ahead")?;
    // 160 KiB, and the 512 of who is written through, which the kernel keeps as shares in millionths of the memory that is free for
    // them, and shows as what this is now
    let limits = guest.ok("cd /sys/class/bdi && grep . cifs-*/max_bytes cifs-*/strict_limit")?;
    let limited = "awk '$1 > 140000 && $1 < 190000 { limited = 1 } $1 > 460000 && $1 < 590000 { through = 1 } \
         END { exit !(limited && through) }' cifs-*/max_bytes && ! grep -qx 0 cifs-*/strict_limit";
    guest.ok(&format!("cd /sys/class/bdi && {limited}")).with_context(|| format!("dirty_limit: {limits}"))?;
    let through = format!("grep ' {} cifs ' /proc/mounts | grep -q ',sync,'", mount_point(NO_DIRECTORY));
    guest.ok(&through).context("a share that is written through is not synchronous")?;
    guest.ok(&format!("rm {marker}"))?;
    guest.wait_for("the marker to be missed again", DEADLINE, &missing)?;
    barred(guest, &path, "ls,create")?;
    guest.ok(&format!("touch {marker}"))?;
    nasmount.wait_for_state(MARKED, "online")?;
    Ok(())
}
