//! What becomes of each option of a line.

use super::super::catalogue::{self, Form};
use super::super::fstab::HIDDEN;
use super::super::inline_login::unknown;
use super::super::mount_unit;
use super::{Line, Remark, quoted};
use crate::config::{OF_ACTIMEO, opposite};

const DIALECT: &str = "kept: try without it; the profiles have 3.1.1, which every NAS of the last ten years speaks";

impl Line<'_> {
    pub(super) fn take(&mut self, option: &str) {
        let (name, value) = option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)));
        match (name, value) {
            ("credentials" | "cred", Some("")) => {
                self.remark(name, "left out: it names no file; `credentials=FILE`, if one is meant");
            }
            ("credentials" | "cred", Some(file)) => self.take_file(file),
            ("user" | "users" | "owner" | "group", None) => {
                self.remark(name, "left out: nasmount mounts as root, and at its start");
            }
            ("guest", _) | ("sec", Some("none")) => self.says_guest = true,
            ("user" | "username" | "pass" | "password" | "pass2" | "password2" | "dom" | "domain" | "workgroup", _) => {
                if name.starts_with("pass") && value.is_some_and(|value| value.contains('"') && !value.contains(',')) {
                    self.remark(name, "its quotes are a part of it, as mount.cifs reads it");
                }
                self.said.push(option.to_owned());
            }
            ("ip" | "addr", Some(address)) => {
                self.remark(name, format!("becomes the server's host, instead of {}", self.host));
                self.host = address.to_owned();
            }
            ("prefixpath", _) => {
                self.remark(name, "left out: kernels since 5.11 ignore it, and mount what the source says");
            }
            ("rw", None) => self.take_back_opposite(name),
            ("port", Some("445")) | ("auto" | "defaults" | "soft", None) => {}
            ("nofail", None) => self.remark(name, "left out: the boot waits for no share of nasmount's"),
            ("_netdev", None) => self.remark(name, "left out: nasmount waits for the network itself"),
            ("noauto", None) => {
                self.remark(name, "left out: nasmount mounts it at its start; `nasmount unmount` takes it off")
            }
            ("fmask", Some(mode)) => self.rename(name, "file_mode", mode),
            ("dmask" | "dirmode", Some(mode)) => self.rename(name, "dir_mode", mode),
            _ => self.take_tuning(name, value),
        }
    }

    fn rename(&mut self, name: &str, newer: &str, value: &str) {
        self.remark(name, format!("becomes {newer}, which is its name today"));
        self.keep(newer, Some(value));
    }

    /// What the profile is for, and what nasmount has its own way of.
    fn take_tuning(&mut self, name: &str, value: Option<&str>) {
        match (name, value) {
            ("hard", None) => {
                self.remark(
                    name,
                    "left out: calls to a dead server would hang for ever; `patience` says how long they wait",
                );
            }
            (
                "rsize" | "wsize" | "bsize" | "rasize" | "echo_interval" | "retrans" | "max_credits" | "handletimeout",
                _,
            ) => {
                self.remark(
                    name,
                    "left out: the profile has what bounds an outage; see profiles/*.toml for the reasons",
                );
            }
            ("cache", Some("loose")) => {
                self.remark(
                    name,
                    "left out: it hides what others write; the profile's cache is as quick for a single user",
                );
            }
            ("vers", Some("1.0" | "1")) => {
                self.remark(name, "left out: another one comes after it");
            }
            ("vers", Some(dialect @ ("3.1.1" | "3.11" | "default"))) => {
                self.forget(name, dialect);
                self.unsay_dialect();
            }
            ("vers", Some(_)) => {
                self.unsay_dialect();
                self.remark(name, DIALECT);
                self.keep(name, value);
            }
            ("sec", Some(how)) if how.starts_with("krb5") => {
                self.kerberos = true;
                self.keep(name, value);
            }
            _ => match catalogue::forbidden(name) {
                Some(forbidden) => {
                    let why = mount_unit::becomes_of_option(name, value).unwrap_or(forbidden.reason);
                    self.remark(name, format!("left out: {why}"));
                }
                None => self.keep(name, value),
            },
        }
    }

    fn keep(&mut self, name: &str, value: Option<&str>) {
        let Some(known) = catalogue::lookup(name) else {
            return self.unknown(name, value);
        };
        let written = match (known.form, value) {
            (Form::Flag, None | Some("")) => "true".to_owned(),
            (Form::Flag, Some("1" | "yes" | "true" | "on")) => {
                self.remark(name, "kept without its value: it is a switch, and has none");
                "true".to_owned()
            }
            (Form::Flag, Some(_)) => {
                return self
                    .remark(name, "left out: it is a switch, and has no value; `man mount.cifs` has its opposite");
            }
            (_, None | Some("")) => return self.remark(name, "left out: it has no value"),
            (Form::Number { .. } | Form::Account, Some(value)) => match value.parse::<u32>() {
                Ok(number) => number.to_string(),
                Err(_) if known.form == Form::Account => quoted(value),
                Err(_) => return self.remark(name, "left out: its value is not a number"),
            },
            (Form::Mode | Form::Word(_) | Form::Text, Some(value)) => quoted(value),
        };
        if name == "actimeo" && OF_ACTIMEO.iter().any(|half| self.has(half)) {
            return self.remark(name, "left out: the kernel takes no notice of it behind `acregmax` or `acdirmax`");
        }
        self.forget(name, &written);
        self.divide_actimeo(name);
        self.options.push((name.to_owned(), written));
        self.take_back_opposite(name);
    }

    /// A bare word may be a password that stands in the wrong place.
    fn unknown(&mut self, name: &str, value: Option<&str>) {
        let option = value.map_or(name, |_| "");
        match unknown(option) {
            Some(_) => {
                let number = self.number;
                let message = format!(
                    "left out: there is no such option of the CIFS client; it is option {number} of the line, and not shown, as it may be a \
                     password"
                );
                self.remark(HIDDEN, message);
            }
            None => self.remark(name, "left out: there is no such option of the CIFS client"),
        }
    }

    /// The last one counts.
    fn forget(&mut self, name: &str, written: &str) {
        let before = self.options.iter().position(|(before, _)| before == name);
        let Some((_, before)) = before.map(|index| self.options.remove(index)) else { return };
        if before != written {
            let before = before.trim_matches('"');
            let written = written.trim_matches('"');
            self.remark(name, format!("{before} is left out: {written} comes after it, and the last one counts"));
        }
    }

    /// One half of an `actimeo` before it counts; the other stays.
    fn divide_actimeo(&mut self, name: &str) {
        let Some(other) = OF_ACTIMEO.into_iter().find(|half| OF_ACTIMEO.contains(&name) && *half != name) else {
            return;
        };
        if let Some(index) = self.options.iter().position(|(before, _)| before == "actimeo") {
            let (_, both) = self.options.remove(index);
            self.remark("actimeo", format!("becomes `{other} = {both}`: {name} comes after it"));
            self.options.push((other.to_owned(), both));
        }
    }

    /// What was said of a dialect that does not count any more.
    fn unsay_dialect(&mut self) {
        let said = Remark::new(&self.at, "vers", DIALECT);
        self.remarks.retain(|remark| *remark != said);
    }

    /// Of `ro` and `rw`, and other such pairs, the last one counts, too.
    fn take_back_opposite(&mut self, name: &str) {
        let negated = name.strip_prefix("no").map_or_else(|| format!("no{name}"), str::to_owned);
        for opposite in opposite(name).into_iter().chain([negated.as_str()]) {
            if self.has(opposite) {
                self.options.retain(|(before, _)| before != opposite);
                self.remark(opposite, format!("left out: {name} comes after it"));
            }
        }
    }
}
