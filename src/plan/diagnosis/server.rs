//! The steps up to a server that speaks SMB: what was seen, judged.

use core::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{
    Diagnosis, Encryption, Greeting, Judged, Look, NoConnection, NoGreeting, Signing, Step, Trouble, Unfinished,
    option, status, trouble,
};
use crate::config::network::{HomeNetwork, listed};
use crate::config::settings::ShareSettings;
use crate::share::detector::LocalTrouble;
use crate::share::detector::addresses::first_of;
use crate::share::detector::network::{self, Interface};

/// Beyond this Kerberos refuses a login (RFC 4120, the default of every implementation).
const KERBEROS_SKEW_SECONDS: f64 = 300.0;

/// Whether this host is on one of the networks on which the server may be asked.
pub fn of_network(only_on: &[HomeNetwork], found: Result<&[Interface], &str>) -> Judged {
    match found.map(|interfaces| network::find(only_on, interfaces)) {
        Ok(Ok(by)) => Ok(format!("{by}; only_on = {}", listed(only_on))),
        Ok(Err(why)) => Err(off_network(why)),
        Err(error) => Err(trouble(
            Step::Network,
            error,
            "it cannot be seen on which network this host is, and the server may be asked on some only",
            "look at `ip address`; if it hangs, too, something in the kernel's network does",
        )),
    }
}

fn off_network(why: String) -> Trouble {
    trouble(
        Step::Network,
        why,
        "this host is on none of the networks on which the server may be asked, so nothing was sent to it",
        "join one (`ip -br address` says on which it is), or change `only_on` of the server",
    )
}

/// What the resolver said of a name.
pub fn of_name(host: &str, found: Result<&[IpAddr], &str>) -> Judged {
    let fix = format!(
        "check `host`, and ask `getent ahosts {host}`; an address instead of the name needs no resolver, which may be away when the NAS is"
    );
    match found {
        Ok(found) if !found.is_empty() && found.iter().all(is_link_local) => Err(trouble(
            Step::Name,
            format!("{host} has link-local addresses only, such as {}", found[0]),
            "such an address means nothing without its interface, which a name does not tell",
            format!(
                "have the name lead to another address; `nasmount diagnose {}%INTERFACE` looks at the server",
                found[0]
            ),
        )),
        Ok(found) => match first_of(found) {
            Some(address) if found.len() == 1 => Ok(format!("{host} is {address}")),
            Some(address) => Ok(format!("{host} has {} addresses; {address} is tried", found.len())),
            None => Err(trouble(Step::Name, format!("{host} has no address"), "the name has no address", fix)),
        },
        Err(error) => Err(trouble(Step::Name, error, "the server's name cannot be resolved", fix)),
    }
}

fn is_link_local(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

/// What the zone of a link-local address is.
pub fn of_zone(host: &str, zone: &str, index: Option<u32>) -> Judged {
    match index {
        Some(_) => Ok(format!("{host} is an address")),
        None => Err(trouble(
            Step::Name,
            format!("this host has no interface {zone}"),
            "a link-local address is one of the network behind the interface that follows its %",
            "`ip -br address` lists the interfaces that there are",
        )),
    }
}

/// Adds this host's way to the server: route, then link. Returns whether both are there.
pub fn add_way(
    diagnosis: &mut Diagnosis,
    address: IpAddr,
    found: Result<Option<(LocalTrouble, String)>, &str>,
    took: Duration,
) -> bool {
    match of_way(found) {
        Some(trouble) if trouble.step <= Step::Route => diagnosis.judge(Step::Route, Err(trouble), Some(took)),
        wrong => {
            diagnosis.judge(Step::Route, Ok(format!("this host has a route to {address}")), Some(took));
            let link = wrong.map_or_else(|| Ok("the interface has a link".to_owned()), Err);
            diagnosis.judge(Step::Link, link, None)
        }
    }
}

fn of_way(found: Result<Option<(LocalTrouble, String)>, &str>) -> Option<Trouble> {
    let (step, message, cause, fix) = match found {
        Ok(None) => return None,
        Ok(Some((LocalTrouble::NoRoute, message))) => (
            Step::Route,
            message,
            "this host's table of routes has none for the server, and no default",
            "look at `ip route`: is the network up, and the VPN, if the server lies behind one?",
        ),
        Ok(Some((LocalTrouble::NoAddress, message))) => (
            Step::Route,
            message,
            "this host has no address in the server's network, or none of its family",
            "look at `ip address`: has DHCP given one?",
        ),
        Ok(Some((LocalTrouble::NoLink, message))) => (
            Step::Link,
            message,
            "the interface towards the server is down, or has no cable or no Wi-Fi",
            "look at `ip link` and at the cable",
        ),
        Ok(Some((LocalTrouble::OffNetwork, message))) => return Some(off_network(message)),
        Err(error) => (
            Step::Route,
            error.to_owned(),
            "the kernel does not say how it would reach the server",
            "look at `ip route` and `ip address`; if they hang, too, something in the kernel's network does",
        ),
    };
    Some(trouble(step, message, cause, fix))
}

/// The versions that a share's `vers` asks for; 2.1 and newer where nothing is said (smb3_fs_context.c), all that there are for a server.
pub fn dialects_of(share: Option<&ShareSettings>) -> &'static [u16] {
    match share.map(|share| option(share, "vers").unwrap_or("default")) {
        None => &[0x0202, 0x0210, 0x0300, 0x0302, 0x0311],
        Some("2.0") => &[0x0202],
        Some("2.1") => &[0x0210],
        Some("3.0") => &[0x0300],
        Some("3.0.2" | "3.02") => &[0x0302],
        Some("3.1.1" | "3.11") => &[0x0311],
        Some("3") => &[0x0300, 0x0302, 0x0311],
        Some(_) => &[0x0210, 0x0300, 0x0302, 0x0311],
    }
}

/// A version as `vers` writes it.
pub fn dialect_name(dialect: u16) -> String {
    match dialect {
        0x0202 => "2.0".to_owned(),
        0x0210 => "2.1".to_owned(),
        0x0300 => "3.0".to_owned(),
        0x0302 => "3.0.2".to_owned(),
        0x0311 => "3.1.1".to_owned(),
        other => format!("{other:#06x}"),
    }
}

/// Whether the port takes connections.
pub fn of_port(look: &Look, server: SocketAddr) -> Judged {
    let fails = |message: String, cause: &str, fix: &str| Err(trouble(Step::Port, message, cause, fix));
    let why = match look {
        Look::NoConnection(why) => why,
        Look::NoGreeting { connect, .. } | Look::Greeted { connect, .. } => {
            return Ok(format!("{server} takes a connection in {}", milliseconds(*connect)));
        }
    };
    match why {
        NoConnection::Refused => fails(
            format!("{server} refuses connections"),
            "the machine is there, and its SMB service is not, or its firewall refuses this host",
            "switch SMB on at the server, and see that its firewall lets this host to port 445",
        ),
        NoConnection::Silent => fails(
            format!("{server} does not answer"),
            "the server is off, has another address now, or a firewall swallows port 445",
            "is it on, and is this still its address? `ping` tells a machine that is away from a port that is closed",
        ),
        NoConnection::Unreachable => fails(
            format!("{server} cannot be reached: no route to host"),
            "nobody has the server's address, or a router on the way knows none to it",
            "is it on and plugged in, and is this still its address?",
        ),
        NoConnection::Other(error) => fails(
            format!("cannot connect to {server}: {error}"),
            "this host does not let the connection out",
            "look at `nft list ruleset` and at this host's limits",
        ),
    }
}

/// Whether SMB is spoken. `speaks` is what the server chooses if it may choose freely.
pub fn of_dialect(look: &Look, share: Option<&ShareSettings>, speaks: Option<u16>) -> Judged {
    let why = match look {
        Look::Greeted { greeting, .. } if !dialects_of(share).contains(&greeting.dialect) => {
            let message = format!("the server chose SMB {}, which was not offered", dialect_name(greeting.dialect));
            let cause = "it does not keep to SMB: the kernel ends such a connection";
            return Err(trouble(
                Step::Dialect,
                message,
                cause,
                "is it the server that you mean? If so, it needs an update",
            ));
        }
        Look::Greeted { greeting, answer, .. } => {
            return Ok(format!("SMB {}, answers in {}", dialect_name(greeting.dialect), milliseconds(*answer)));
        }
        Look::NoConnection(_) => NoGreeting::Silent,
        Look::NoGreeting { why, .. } => *why,
    };
    let vers = share.and_then(|share| option(share, "vers"));
    if let NoGreeting::Status(number) = why {
        return Err(of_status(number, speaks, vers));
    }
    let (message, cause, fix) = of_no_greeting(why);
    Err(trouble(Step::Dialect, message, cause, fix))
}

/// An NT status instead of a version.
fn of_status(number: u32, speaks: Option<u16>, vers: Option<&str>) -> Trouble {
    let about_versions = matches!(number, status::NOT_SUPPORTED | status::INVALID_PARAMETER);
    if let (true, Some(speaks), Some(vers)) = (about_versions, speaks, vers) {
        let (speaks, message) = (dialect_name(speaks), format!("the server does not speak SMB {vers}"));
        let cause = format!("`vers` is {vers}, and the server speaks {speaks}");
        let fix = format!("set `vers = \"{speaks}\"` in the share's `options`, or switch {vers} on at the server");
        return trouble(Step::Dialect, message, cause, fix);
    }
    match status::lookup(number) {
        Some(known) => {
            let message = format!("the server answers with {} ({number:#010x})", known.name);
            trouble(Step::Dialect, message, known.cause, known.fix)
        }
        None => trouble(
            Step::Dialect,
            format!("the server answers with the NT status {number:#010x}"),
            "that is an error of the server's, which nasmount has no words for; no login was sent yet",
            "look into the server's log, and look the number up in [MS-ERREF] 2.3.1",
        ),
    }
}

/// What came instead of SMB 2, why, and what to do.
fn of_no_greeting(why: NoGreeting) -> (String, &'static str, &'static str) {
    const HANGS: &str = "its SMB service hangs, or is overloaded";
    const RESTART: &str = "restart its SMB service; a server that has just started may need minutes";
    const ANOTHER: &str = "another service listens on the port of SMB";
    const WHICH: &str = "is this the right address? Look what listens on port 445 there";
    let (message, cause, fix) = match why {
        NoGreeting::Smb1 => (
            "the server speaks SMB 1 only",
            "SMB 1 is all that it speaks; Linux says \"Host is down\" of such a server, and nasmount does not mount it",
            status::ENABLE,
        ),
        NoGreeting::Closed => (
            "the server takes the connection and ends it",
            "it speaks no SMB 2 or 3, or does not let this host in",
            "switch SMB 2 or 3 on at the server; look whether it has blocked this host (`hosts allow`, automatic blocking)",
        ),
        NoGreeting::Silent | NoGreeting::Status(_) => {
            ("the server takes the connection and says nothing", HANGS, RESTART)
        }
        NoGreeting::Incomplete { bytes, of, ending } => {
            let part = match of {
                Some(of) => format!("{bytes} of the {of} bytes of its answer"),
                None => format!("{bytes} bytes, which is no whole answer"),
            };
            return match ending {
                Unfinished::Late => {
                    (format!("the server says {part} and does not come to an end in time"), SLOW, RESTART)
                }
                Unfinished::Closed => (format!("the server says {part} and ends the connection"), BROKE_OFF, RESTART),
            };
        }
        NoGreeting::Tls => ("TLS answers on port 445", ANOTHER, WHICH),
        NoGreeting::Http => (
            "a web server answers on port 445",
            "another service listens on the port of SMB, or a proxy is in between",
            WHICH,
        ),
        NoGreeting::Garbled => ("something that is not SMB answers on port 445", ANOTHER, WHICH),
    };
    (message.to_owned(), cause, fix)
}

const SLOW: &str =
    "its SMB service hangs in the middle of an answer, or is overloaded, or the network loses what follows";
const BROKE_OFF: &str = "its SMB service broke off in the middle of an answer: it has crashed, or does not speak SMB";

/// What is demanded of signatures and encryption.
pub fn of_signing(greeting: &Greeting, share: Option<&ShareSettings>) -> Judged {
    let signing = match greeting.signing {
        Signing::Required => "signing is required",
        Signing::Possible => "signing is possible",
    };
    let sealed = share.is_some_and(|share| share.options.contains_key("seal"));
    match greeting.encryption {
        Encryption::None if sealed => Err(trouble(
            Step::Signing,
            "the server does not offer encryption",
            format!("`seal` asks for encryption, and the server has none with SMB {}", dialect_name(greeting.dialect)),
            "switch encryption on at the server, or take `seal` out of `options`",
        )),
        Encryption::None => Ok(format!("{signing}, encryption is not possible")),
        Encryption::Possible => Ok(format!("{signing}, encryption is possible")),
    }
}

/// The middle of what each of several looks took; empty if there is none.
pub fn of_latency(looks: &[Look]) -> String {
    let mut taken: Vec<(Duration, Duration)> = Vec::new();
    for look in looks {
        if let Look::Greeted { connect, answer, .. } = look {
            taken.push((*connect, *answer));
        }
    }
    let middle = |mut times: Vec<Duration>| {
        times.sort();
        times.get(times.len() / 2).copied().unwrap_or_default()
    };
    let (connect, answer) = taken.iter().copied().unzip();
    let (connect, answer) = (milliseconds(middle(connect)), milliseconds(middle(answer)));
    let lost = match looks.len() - taken.len() {
        0 => String::new(),
        lost => format!("; {lost} were not answered"),
    };
    format!("connections take {connect} and answers {answer}, the middle of {}{lost}", looks.len())
}

/// How far the clocks are apart, which matters to Kerberos alone.
pub fn of_clock(ahead: Option<f64>, share: Option<&ShareSettings>) -> Judged {
    let Some(ahead) = ahead else { return Ok("the server does not tell the time".to_owned()) };
    let (apart, side) = (ahead.abs(), if ahead < 0.0 { "behind" } else { "ahead" });
    if apart < 1.0 {
        return Ok("the clocks agree to a second".to_owned());
    }
    let message = format!("the server's clock is {apart:.0} s {side}");
    let kerberos = share.and_then(|share| option(share, "sec")).is_some_and(|sec| sec.starts_with("krb5"));
    match apart > KERBEROS_SKEW_SECONDS {
        true if kerberos => Err(trouble(
            Step::Clock,
            message,
            "Kerberos refuses a login when the clocks are more than five minutes apart",
            "have both set by NTP",
        )),
        true => Ok(format!("{message}: too far for Kerberos, and files have odd times; have both set by NTP")),
        false => Ok(message),
    }
}

fn milliseconds(took: Duration) -> String {
    format!("{:.1} ms", took.as_secs_f64() * 1000.0)
}
