//! nasmount's own nftables table: the veil and the fence.
//!
//! - **Veil** (input hook): FIN and RST from a server's port 445 to this host's CIFS sockets are dropped, so the kernel does not
//!   learn of an outage before nasmount has decided.
//!   What is dropped is reported over NFLOG (`news`), where the kernel can: it is the earliest sign of a server that stops.
//! - **Fence** (output hook): what the kernel's CIFS client sends to a server's port 445 is answered with a TCP reset on the spot.
//!   Turns waiters that nothing else frees (D in smb2_reconnect) into ones that end within 10 s (measured).
//! - **Sinkhole** (nat, output hook): new connections of the client to a server whose mounts are all being given up lead to one of this
//!   host's own (`sinkhole`), where they are refused so that nobody waits those 10 s either.
//! - What the client sends to a server while this host is on none of its networks is dropped: whoever has the address there is somebody
//!   else. To the client it is the same silence as that of a server that is away.
//!
//! None concerns the sockets of programs, such as smbclient and nasmount's own probes: these have a file, and therefore an owner to
//! ask for, and the kernel's have not (`nft_meta_get_eval_skugid` in net/netfilter/nft_meta.c gives up without one, and then the rule
//! does not apply). On input the owner is known of an early demultiplexed packet only, so the mark of the probes is looked at as well.
//!
//! The whole table is replaced in one transaction each time, so there is no moment with half of it, and what a crashed
//! daemon left is replaced by what the next one wants. Written by `nft`, the well-kept way; a table of one's own does not
//! disturb another firewall's, though their rules may drop packets before.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::news::VEIL_LOG_GROUP;
use super::probe::{PROBE_MARK, SMB_PORT};

/// Name of the table.
pub const TABLE: &str = "nasmount";

/// Of a socket with an owner, whoever that is.
const OF_A_PROGRAM: &str = "meta skuid 0-4294967294";

/// A ruleset of a few lines takes milliseconds; another firewall that holds the kernel's lock may take a second.
const WITHIN: Duration = Duration::from_secs(5);

/// Removes the table; for whoever takes nasmount off the host.
pub fn remove() -> io::Result<()> {
    remove_by("nft")
}

/// A host without the program has no table either.
fn remove_by(program: &str) -> io::Result<()> {
    let mut child = match std::process::Command::new(program).args(["-f", "-"]).stdin(Stdio::piped()).spawn() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        child => child?,
    };
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(Rules::default().script().as_bytes())?;
    }
    if child.wait()?.success() { Ok(()) } else { Err(io::Error::other("nft refused to remove the table")) }
}

/// What the table should say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Servers whose FIN and RST are hidden from the kernel.
    pub veiled: BTreeSet<IpAddr>,
    /// Servers to which nothing is sent.
    pub fenced: BTreeSet<IpAddr>,
    /// Servers to which nothing is sent, without a word of it: this host is on another network than theirs. A fence goes before.
    pub off_network: BTreeSet<IpAddr>,
    /// Fenced servers that a sinkhole answers for.
    pub sunk: BTreeSet<IpAddr>,
    /// Where the sinkhole listens.
    pub sinkhole: u16,
    /// Whether what is hidden is reported.
    pub report: Report,
}

/// Whether what the veil drops is reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Report {
    /// Over NFLOG.
    #[default]
    Logged,
    /// The kernel lacks nfnetlink_log.
    Silent,
}

impl Rules {
    /// The text for `nft -f -`: the table, replaced as a whole; or its removal if there is nothing to say.
    pub fn script(&self) -> String {
        // adding first makes deleting succeed whether or not there was one
        let mut script = format!("table inet {TABLE}\ndelete table inet {TABLE}\n");
        if self.is_empty() {
            return script;
        }
        let _ = writeln!(script, "table inet {TABLE} {{");
        let _ = writeln!(script, "  chain veil {{\n    type filter hook input priority filter; policy accept;");
        let log = match self.report {
            Report::Logged => format!("log group {VEIL_LOG_GROUP} "),
            Report::Silent => String::new(),
        };
        for server in &self.veiled {
            let ip = protocol(*server);
            let _ = writeln!(script, "    {ip} saddr {server} tcp sport {SMB_PORT} {OF_A_PROGRAM} accept");
            let _ = writeln!(
                script,
                "    {ip} saddr {server} tcp sport {SMB_PORT} tcp flags & (fin | rst) != 0 socket mark != {PROBE_MARK:#x} {log}counter drop"
            );
        }
        let _ = writeln!(script, "  }}\n  chain fence {{\n    type filter hook output priority filter; policy accept;");
        let fenced = self.fenced.iter().map(|server| (server, "reject with tcp reset"));
        for (server, verdict) in fenced.chain(self.dropped().map(|server| (server, "drop"))) {
            let ip = protocol(*server);
            let _ = writeln!(script, "    {ip} daddr {server} tcp dport {SMB_PORT} {OF_A_PROGRAM} accept");
            let _ = writeln!(
                script,
                "    {ip} daddr {server} tcp dport {SMB_PORT} meta mark != {PROBE_MARK:#x} counter {verdict}"
            );
        }
        script.push_str("  }\n");
        self.lead_to_the_sinkhole(&mut script);
        script.push_str("}\n");
        script
    }

    /// Before the fence, which then finds another destination. The chain is there only while it is needed: it has the kernel track all
    /// connections of the host.
    fn lead_to_the_sinkhole(&self, script: &mut String) {
        if self.sunk.is_empty() {
            return;
        }
        script.push_str("  chain sinkhole {\n    type nat hook output priority -100; policy accept;\n");
        for server in &self.sunk {
            let ip = protocol(*server);
            let _ = writeln!(script, "    {ip} daddr {server} tcp dport {SMB_PORT} {OF_A_PROGRAM} accept");
            let _ = writeln!(
                script,
                "    {ip} daddr {server} tcp dport {SMB_PORT} meta mark != {PROBE_MARK:#x} counter redirect to :{}",
                self.sinkhole
            );
        }
        script.push_str("  }\n");
    }

    /// Makes the kernel's table say this.
    pub async fn apply(&self) -> io::Result<()> {
        run(&["-f", "-"], &self.script()).await.map(drop)
    }

    /// Does the kernel's table have as many rules as it should?
    pub async fn are_in_force(&self) -> io::Result<bool> {
        let listed = match run(&["list", "table", "inet", TABLE], "").await {
            Ok(listed) => listed,
            Err(error) if error.kind() == io::ErrorKind::Other => return Ok(self.is_empty()),
            Err(error) => return Err(error),
        };
        let rules = listed.lines().filter(|line| line.contains(" counter ")).count();
        Ok(rules == self.veiled.len() + self.fenced.len() + self.dropped().count() + self.sunk.len())
    }

    fn dropped(&self) -> impl Iterator<Item = &IpAddr> {
        self.off_network.difference(&self.fenced)
    }

    /// Nothing: there is no table.
    pub fn is_empty(&self) -> bool {
        self.veiled.is_empty() && self.fenced.is_empty() && self.off_network.is_empty()
    }
}

/// Runs nft; an error of its own is of kind `Other`.
async fn run(arguments: &[&str], input: &str) -> io::Result<String> {
    let mut child = Command::new("nft")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).await?;
    }
    let output = tokio::time::timeout(WITHIN, child.wait_with_output())
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "nft did not end"))??;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(io::Error::other(format!("nft: {}", String::from_utf8_lossy(&output.stderr).trim())))
}

fn protocol(server: IpAddr) -> &'static str {
    if server.is_ipv4() { "ip" } else { "ip6" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nft_is_not_installed_there_is_nothing_to_remove() {
        assert!(remove_by("/nowhere/nft").is_ok());
        assert!(remove_by("/bin/false").is_err());
    }

    #[test]
    fn nothing_to_say_removes_the_table() {
        assert!(!Rules::default().script().contains("chain"));
    }

    #[test]
    fn each_server_has_its_rule_in_its_family() {
        let rules = Rules {
            veiled: ["10.0.0.1", "fd00::1"].iter().filter_map(|ip| ip.parse().ok()).collect(),
            fenced: ["fd00::1"].iter().filter_map(|ip| ip.parse().ok()).collect(),
            off_network: ["fd00::1", "10.0.0.2"].iter().filter_map(|ip| ip.parse().ok()).collect(),
            ..Rules::default()
        };
        let script = rules.script();
        assert!(script.contains("ip saddr 10.0.0.1 tcp sport 445"));
        assert!(script.contains("ip6 saddr fd00::1 tcp sport 445"));
        assert!(script.contains("ip6 daddr fd00::1 tcp dport 445"));
        assert!(!script.contains("ip daddr 10.0.0.1"));
        assert!(script.contains("ip daddr 10.0.0.2 tcp dport 445 meta mark != 0x6e6173 counter drop"), "{script}");
        assert!(
            !script.contains("ip6 daddr fd00::1 tcp dport 445 meta mark != 0x6e6173 counter drop"),
            "the fence goes before"
        );
        assert!(script.contains("log group 28269 counter drop"));
        assert!(!script.contains("nat"), "connections are tracked only while there is a sinkhole");
        let silent = Rules { report: Report::Silent, sunk: rules.fenced.clone(), sinkhole: 1023, ..rules };
        assert!(!silent.script().contains("log"));
        assert!(
            silent.script().contains("ip6 daddr fd00::1 tcp dport 445 meta mark != 0x6e6173 counter redirect to :1023")
        );
    }
}
