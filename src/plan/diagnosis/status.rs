//! What a server means by the NT status with which it answers NEGOTIATE ([MS-ERREF] 2.3.1). Only one of them says that it has no version in
//! common with this host; the others are about this host, about the server's state, or about something on the way.

/// A status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its number.
    pub number: u32,
    /// Its name.
    pub name: &'static str,
    /// Why: a sentence without a full stop.
    pub cause: &'static str,
    /// What to do: the same.
    pub fix: &'static str,
}

const fn status(number: u32, name: &'static str, cause: &'static str, fix: &'static str) -> Status {
    Status { number, name, cause, fix }
}

/// The one that is about versions.
pub const NOT_SUPPORTED: u32 = 0xc000_00bb;

/// How some servers say the same.
pub const INVALID_PARAMETER: u32 = 0xc000_000d;

pub(super) const ENABLE: &str =
    "switch SMB 2 or 3 on at the server (often `maximum protocol`), and restart its SMB service";
const LET_IN: &str = "look on the server whether it has blocked this host (`hosts allow`, automatic blocking, a firewall's list), and \
     into its log";
const FREE: &str = "restart its SMB service, and look what uses it up";
const SESSIONS: &str = "end some on the server; Windows for desktops takes twenty";
const NOT_IN_COMMON: &str = "the server speaks no version of SMB that was offered";
const OUT_OF_MEMORY: &str = "the server is out of memory or of connections, before anybody has logged in";
const TOO_MANY: &str = "the server has as many connections or sessions as it takes";
const ITS_OWN: &str = "something fails in the server itself, before anybody has logged in";
const LOOK_THERE: &str = "look into its log, and restart its SMB service";
const ENDED: &str = "the server, or something between it and this host, ends the connection instead of answering";
const LOOK_BETWEEN: &str =
    "try again; if it stays so, look into the server's log and at what is between: VPN, proxy, firewall";
const GOING_DOWN: &str = "the server is going down, or its SMB service is";
const WAIT: &str = "wait until it is up again, then try again";
const BEFORE_LOGIN: &str = "the server refuses this host, not a login: none was sent";

/// Those that people meet, in the order of their numbers.
pub const STATUSES: &[Status] = &[
    status(0x0000_0103, "STATUS_PENDING", "the server says that its answer takes longer: it is overloaded", FREE),
    status(0xc000_0001, "STATUS_UNSUCCESSFUL", ITS_OWN, LOOK_THERE),
    status(
        0xc000_0002,
        "STATUS_NOT_IMPLEMENTED",
        "what answers has no NEGOTIATE of SMB 2: it is a part of a server, or no server of files",
        "is it the server that you mean? If so, it needs an update, or SMB 2 and 3 switched on",
    ),
    status(
        INVALID_PARAMETER,
        "STATUS_INVALID_PARAMETER",
        "the server does not understand how SMB was offered: its implementation is old or faulty",
        "update the server; with SMB 3.1.1 switched off there it may understand",
    ),
    status(
        0xc000_0010,
        "STATUS_INVALID_DEVICE_REQUEST",
        "what answers does not serve files: a printer, or a service that is only half started",
        "is it the server that you mean? If so, restart its SMB service",
    ),
    status(0xc000_0017, "STATUS_NO_MEMORY", OUT_OF_MEMORY, FREE),
    status(0xc000_0022, "STATUS_ACCESS_DENIED", BEFORE_LOGIN, LET_IN),
    status(0xc000_006d, "STATUS_LOGON_FAILURE", BEFORE_LOGIN, LET_IN),
    status(0xc000_009a, "STATUS_INSUFFICIENT_RESOURCES", OUT_OF_MEMORY, FREE),
    status(
        0xc000_00b5,
        "STATUS_IO_TIMEOUT",
        "the server waited in vain for something of its own, often a disk",
        LOOK_THERE,
    ),
    status(NOT_SUPPORTED, "STATUS_NOT_SUPPORTED", NOT_IN_COMMON, ENABLE),
    status(0xc000_00ca, "STATUS_NETWORK_ACCESS_DENIED", BEFORE_LOGIN, LET_IN),
    status(0xc000_00ce, "STATUS_TOO_MANY_SESSIONS", TOO_MANY, SESSIONS),
    status(0xc000_00d0, "STATUS_REQUEST_NOT_ACCEPTED", TOO_MANY, SESSIONS),
    status(0xc000_00dc, "STATUS_INVALID_SERVER_STATE", "the server is starting or stopping its SMB service", WAIT),
    status(0xc000_00e5, "STATUS_INTERNAL_ERROR", ITS_OWN, LOOK_THERE),
    status(0xc000_0120, "STATUS_CANCELLED", GOING_DOWN, WAIT),
    status(0xc000_0203, "STATUS_USER_SESSION_DELETED", ENDED, LOOK_BETWEEN),
    status(0xc000_0205, "STATUS_INSUFF_SERVER_RESOURCES", OUT_OF_MEMORY, FREE),
    status(0xc000_020c, "STATUS_CONNECTION_DISCONNECTED", ENDED, LOOK_BETWEEN),
    status(0xc000_020d, "STATUS_CONNECTION_RESET", ENDED, LOOK_BETWEEN),
    status(0xc000_0241, "STATUS_CONNECTION_ABORTED", ENDED, LOOK_BETWEEN),
    status(0xc000_02fe, "STATUS_SHUTDOWN_IN_PROGRESS", GOING_DOWN, WAIT),
    status(0xc000_02ff, "STATUS_SERVER_SHUTDOWN_IN_PROGRESS", GOING_DOWN, WAIT),
    status(0xc000_0418, "STATUS_NTLM_BLOCKED", BEFORE_LOGIN, LET_IN),
    status(
        0xc000_0466,
        "STATUS_SERVER_UNAVAILABLE",
        "the server, or the node of a cluster that has its address, does not serve files now",
        WAIT,
    ),
    status(
        0xc05d_0000,
        "STATUS_SMB_NO_PREAUTH_INTEGRITY_HASH_OVERLAP",
        "the server wants another hash than SHA-512 for SMB 3.1.1, which is the only one that there is",
        "update the server, or switch SMB 3.1.1 off there",
    ),
    status(
        0xc05d_0001,
        "STATUS_SMB_BAD_CLUSTER_DIALECT",
        "the nodes of the cluster speak different versions of SMB, and this one may not speak what was offered",
        "bring its nodes to the same version",
    ),
];

/// What is known of a number.
pub fn lookup(number: u32) -> Option<&'static Status> {
    STATUSES.iter().find(|status| status.number == number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_says_that_there_is_no_version_in_common_and_each_number_is_there_once() {
        let of_versions: Vec<u32> =
            STATUSES.iter().filter(|status| status.cause == NOT_IN_COMMON).map(|status| status.number).collect();
        assert_eq!(of_versions, [NOT_SUPPORTED]);
        assert!(STATUSES.is_sorted_by(|one, next| one.number < next.number));
        for Status { name, cause, fix, .. } in STATUSES {
            assert!(name.starts_with("STATUS_") && !cause.ends_with('.') && !fix.ends_with('.'), "{name}");
        }
    }
}
