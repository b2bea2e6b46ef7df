//! What each option bounds, or does, in a few words, and what the kernel does where nothing is said. The reasons are in the profiles.

/// Of an option; `None` for one whose name says it, and for those that hardly anybody writes.
pub fn bounds(option: &str) -> Option<&'static str> {
    Some(match option {
        "soft" => "calls fail when the kernel gives up",
        "hard" => "nothing: calls wait until the server is back",
        "echo_interval" => "seconds; the kernel gives up after 3 times as long",
        "retrans" => "how often a call is repeated after a reconnect",
        "nosharesock" => "to what a connection's end does harm: this share alone",
        "port" => "tries to connect: one port instead of two",
        "rsize" => "bytes of one read, and how long others wait behind it",
        "wsize" => "bytes of one write",
        "bsize" => "the buffers that programs take",
        "rasize" => "bytes that are read ahead",
        "max_credits" => "requests that are under way at the same time",
        "handletimeout" => "milliseconds for which the server keeps files of a lost connection",
        "noautotune" => "how much a new connection can have under way: 200 KiB",
        "cache" => "how long changes of others stay unseen",
        "actimeo" => "seconds for which attributes may be out of date",
        "acregmax" => "seconds for which attributes of files may be out of date",
        "acdirmax" => "seconds for which attributes of directories may be out of date",
        "closetimeo" => "seconds for which the server has a closed file open",
        "nohandlecache" => "directories that are open on the server: none",
        "handlecache" | "max_cached_dirs" => "directories that are open on the server",
        "nolease" | "noac" => "how long changes of others stay unseen: not at all",
        "nostrictsync" => "fsync: it waits for the server, not for its disk",
        "strictsync" => "fsync: it waits for the server's disk",
        "vers" => "the dialects that may be spoken",
        "sec" => "how the client logs in",
        "cruid" => "whose Kerberos ticket is used",
        "multiuser" => "whose login the server sees: that of each user",
        "suid" => "nothing: programs of the share get the rights of their owners",
        "dev" => "nothing: devices of the share are this host's",
        "seal" => "who can read along: nobody",
        "sign" => "who can change what is under way: nobody",
        "ignore_signature" => "nothing: whoever is in between can change what is under way",
        "uid" | "forceuid" => "whose the files are on this host",
        "gid" | "forcegid" => "of which group the files are on this host",
        "file_mode" | "dir_mode" => "who may do what on this host; the server asks its own login",
        "noperm" => "nothing on this host: the server alone says who may do what",
        "serverino" => "inode numbers are the server's",
        "noserverino" => "inode numbers are made up",
        "brl" => "locks are the server's: other hosts see them",
        "nobrl" => "locks are this host's: other hosts do not see them",
        "mfsymlinks" => "symbolic links, as files that this client understands",
        "ro" => "writing: there is none",
        "nosuid" => "whose rights a program of the share gets",
        "nodev" => "device nodes: they are files",
        "noexec" => "programs of the share: they do not run",
        "noatime" => "times of access: they are not written",
        _ => return None,
    })
}

/// What the kernel does where neither word of a pair is said (fs_context.c at 6.12), of the options that may hurt.
pub const KERNEL_DEFAULTS: &[(&str, Option<&str>, &str)] = &[
    ("cache", Some("strict"), "cache"),
    ("rsize", Some("4194304"), "rsize"),
    ("wsize", Some("4194304"), "wsize"),
    ("vers", Some("default"), "vers"),
    ("serverino", None, "noserverino"),
    ("brl", None, "nobrl"),
];

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::config::{self, SourceText, shipped_profiles};
    use crate::plan::{catalogue, hazards};

    #[test]
    fn every_option_of_the_profiles_says_what_it_bounds() {
        for profile in ["media", "transcode", "documents", "backup"] {
            let text = format!(
                "[server.a]\nhost = \"a\"\n[share.b]\nserver = \"a\"\nsource = \"b\"\nmount_point = \"/mnt/b\"\nprofile = \"{profile}\"\n"
            );
            let loaded = config::load(&[SourceText::new("x", text)], &shipped_profiles()).unwrap();
            for option in loaded.settings.shares.values().next().unwrap().options.keys() {
                assert!(bounds(option).is_some(), "{option}");
            }
        }
    }

    #[test]
    fn what_may_hurt_says_what_it_bounds_and_all_of_it_fits_a_line() {
        for known in catalogue::KNOWN {
            let value = Some("99999999");
            assert!(hazards::of(known.name, value).is_none() || bounds(known.name).is_some(), "{}", known.name);
            assert!(bounds(known.name).is_none_or(|text| text.len() <= 70), "{}", known.name);
        }
    }

    #[test]
    fn the_kernels_defaults_are_options_that_say_what_they_bound() {
        for (option, value, opposite) in KERNEL_DEFAULTS {
            assert!(catalogue::lookup(option).is_some() && catalogue::lookup(opposite).is_some(), "{option}");
            assert!(bounds(option).is_some(), "{option}");
            assert_eq!(hazards::of(option, *value), None, "{option}: a default that hurts");
        }
    }
}
