//! What the CIFS lines of fstab(5) become in nasmount's configuration: a text to be read and taken over by a person, and a word about
//! every option that is not simply kept.
//!
//! The format is libmount's: fields between blanks and tabs, `\040` and other octal escapes in them, options between commas that do
//! not stand in double quotes. Passwords go nowhere but into the file that the remark asks for: neither text nor remarks have them.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde::Serialize;

use super::catalogue::{self, Form};

/// The result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Import {
    /// For `/etc/nasmount/nasmount.toml`; empty if there was no line.
    pub toml: String,
    /// Lines of fstab that it stands for, from 1.
    pub lines: Vec<usize>,
    /// What else there is to know, in the order of the lines.
    pub remarks: Vec<Remark>,
}

/// About one option, or a line as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Remark {
    /// Line of fstab, from 1.
    pub line: usize,
    /// Name of the option; empty for the line.
    pub option: String,
    /// What becomes of it, and why.
    pub message: String,
}

/// A server as its lines name it.
struct Server {
    name: String,
    host: String,
    login: Login,
}

/// One line on its way.
struct Line<'text> {
    number: usize,
    host: String,
    source: String,
    mount_point: String,
    login: Login,
    says_guest: bool,
    kerberos: bool,
    /// What it says of its login itself.
    said: Vec<String>,
    /// As they stand in the table, in the order of fstab.
    options: Vec<(String, String)>,
    read_only: bool,
    remarks: &'text mut Vec<Remark>,
}

/// No `Debug`: it may have a password.
#[derive(Clone, Default, PartialEq, Eq)]
enum Login {
    #[default]
    Guest,
    Kerberos,
    File(String),
    /// On the line itself: these options, to tell it from others.
    Inline(Vec<String>),
}

/// Translates the text of an fstab.
pub fn import(fstab: &str) -> Import {
    let mut remarks = Vec::new();
    let (mut servers, mut shares, mut lines): (Vec<Server>, Vec<String>, Vec<usize>) = Default::default();
    let mut names = BTreeSet::new();
    for (index, text) in fstab.lines().enumerate() {
        let Some(mut line) = read_line(index + 1, text, &mut remarks) else { continue };
        let server = line.server(&mut servers);
        let name = unique(&line.mount_point, "share", &mut names);
        shares.push(line.share(&name, &server));
        lines.push(line.number);
    }
    let mut toml = String::new();
    for Server { name, host, login } in servers {
        let _ = writeln!(toml, "[server.{name}]\nhost = {}", quoted(&host));
        match login {
            Login::Guest | Login::Kerberos => {}
            Login::File(file) => drop(writeln!(toml, "credentials = {}", quoted(&file))),
            Login::Inline(_) => drop(writeln!(toml, "credentials = \"{}\"", credentials_of(&name))),
        }
        toml.push('\n');
    }
    toml.push_str(&shares.join("\n"));
    Import { toml, lines, remarks }
}

/// `None` if the line is none of CIFS, or cannot be one of nasmount's.
fn read_line<'text>(number: usize, text: &str, remarks: &'text mut Vec<Remark>) -> Option<Line<'text>> {
    let mut fields = text.split([' ', '\t']).filter(|field| !field.is_empty());
    let spec = fields.next().filter(|spec| !spec.starts_with('#'))?;
    let (place, kind, options) = (fields.next()?, fields.next()?, fields.next().unwrap_or("defaults"));
    if !["cifs", "smb3"].contains(&kind) {
        return None;
    }
    let mut refuse = |message: String| remarks.push(Remark { line: number, option: String::new(), message });
    let (spec, mount_point) = (unescaped(spec).replace('\\', "/"), unescaped(place));
    let Some((host, source)) = spec.strip_prefix("//").and_then(|rest| rest.split_once('/')) else {
        refuse(format!("left out: {spec} is not //SERVER/SHARE"));
        return None;
    };
    if !mount_point.starts_with('/') {
        refuse(format!("left out: {mount_point} is not a directory's path"));
        return None;
    }
    let (host, source) = (host.to_owned(), source.trim_matches('/').to_owned());
    let mount_point = if mount_point.len() > 1 { mount_point.trim_end_matches('/').to_owned() } else { mount_point };
    let mut line = Line {
        number,
        host,
        source,
        mount_point,
        login: Login::default(),
        says_guest: false,
        kerberos: false,
        said: Vec::new(),
        options: Vec::new(),
        read_only: false,
        remarks,
    };
    for option in split_options(&unescaped(options)) {
        line.take(&option);
    }
    line.settle_login();
    Some(line)
}

/// Octal escapes, as fstab has them for blanks (`\040`), tabs and backslashes.
fn unescaped(field: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = field.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..3).filter(|_| *first == b'\\');
        let code = code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 8).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// At commas, but not within double quotes, which go.
fn split_options(options: &str) -> Vec<String> {
    let mut all = vec![String::new()];
    let mut quotes = false;
    for letter in options.chars() {
        match letter {
            '"' => quotes = !quotes,
            ',' if !quotes => all.push(String::new()),
            _ => all.last_mut().into_iter().for_each(|option| option.push(letter)),
        }
    }
    all.retain(|option| !option.is_empty());
    all
}

impl Line<'_> {
    fn remark(&mut self, option: &str, message: impl Into<String>) {
        self.remarks.push(Remark { line: self.number, option: option.to_owned(), message: message.into() });
    }

    fn take(&mut self, option: &str) {
        let (name, value) = option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)));
        match (name, value) {
            ("credentials" | "cred", Some(file)) => self.login = Login::File(file.to_owned()),
            ("user" | "users" | "owner" | "group", None) => {
                self.remark(name, "left out: nasmount mounts as root, and at its start");
            }
            ("guest", _) | ("sec", Some("none")) => self.says_guest = true,
            ("user" | "username" | "pass" | "password" | "pass2" | "password2" | "dom" | "domain" | "workgroup", _) => {
                if name.starts_with("pass") && value.is_none_or(str::is_empty) {
                    self.says_guest = true; // an empty password
                } else {
                    self.said.push(option.to_owned());
                }
            }
            ("ip" | "addr", Some(address)) => {
                self.remark(name, format!("becomes the server's host, instead of {}", self.host));
                self.host = address.to_owned();
            }
            ("prefixpath", Some(path)) => self.source = format!("{}/{}", self.source, path.trim_matches('/')),
            ("port", Some("445")) | ("rw" | "auto" | "defaults" | "nofail" | "_netdev" | "soft", None) => {}
            ("noauto", None) => {
                self.remark(name, "left out: nasmount mounts it at its start; `nasmount unmount` takes it off")
            }
            ("context" | "fscontext" | "defcontext" | "rootcontext", _) => {
                self.remark(name, "left out: nasmount sets no SELinux label");
            }
            ("fmask", Some(mode)) => self.keep("file_mode", Some(mode)),
            ("dmask" | "dirmode", Some(mode)) => self.keep("dir_mode", Some(mode)),
            _ => self.take_tuning(name, value),
        }
    }

    /// A user without a password is a guest. What stands beside a file belongs into it.
    fn settle_login(&mut self) {
        let said = std::mem::take(&mut self.said);
        let names = || said.iter().map(|option| option.split('=').next().unwrap_or_default());
        if self.kerberos {
            let file = matches!(self.login, Login::File(_)).then_some("credentials");
            names().chain(file).for_each(|name| self.remark(name, "left out: Kerberos has the login"));
            self.login = Login::Kerberos;
        } else if let Login::File(file) = &self.login {
            let message = format!("belongs into {file}, on a line of its own");
            names().for_each(|name| self.remark(name, message.clone()));
        } else if !said.is_empty() && (names().any(|name| name.starts_with("pass")) || !self.says_guest) {
            // `user` and `username`, `pass` and `password` are the same
            let plain =
                |option: &String| format!("{}={}", &option[..3], option.split_once('=').map_or("", |both| both.1));
            self.login = Login::Inline(said.iter().map(plain).collect());
        }
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
                self.remark(name, "left out: SMB 1 is not supported; switch SMB 2 or 3 on at the server");
            }
            ("vers", Some("3.1.1" | "3.11" | "default")) => {}
            ("vers", Some(_)) => {
                self.remark(
                    name,
                    "kept: try without it; the profiles have 3.1.1, which every NAS of the last ten years speaks",
                );
                self.keep(name, value);
            }
            ("sec", Some(how)) if how.starts_with("krb5") => {
                self.kerberos = true;
                self.keep(name, value);
            }
            _ => match catalogue::forbidden(name) {
                Some(forbidden) => self.remark(name, format!("left out: {}", forbidden.reason)),
                None => self.keep(name, value),
            },
        }
    }

    fn keep(&mut self, name: &str, value: Option<&str>) {
        self.read_only |= name == "ro";
        let Some(known) = catalogue::lookup(name) else {
            return self.remark(name, "left out: there is no such option of the CIFS client");
        };
        let written = match (known.form, value) {
            (Form::Flag, _) => "true".to_owned(),
            (_, None | Some("")) => return self.remark(name, "left out: it has no value"),
            (Form::Number { .. } | Form::Account, Some(value)) => match value.parse::<u32>() {
                Ok(number) => number.to_string(),
                Err(_) if known.form == Form::Account => quoted(value),
                Err(_) => return self.remark(name, "left out: its value is not a number"),
            },
            (Form::Mode | Form::Word(_) | Form::Text, Some(value)) => quoted(value),
        };
        self.options.retain(|(before, _)| before != name); // the last one counts
        self.options.push((name.to_owned(), written));
    }

    /// The name of its server, which it may be the first to name.
    fn server(&mut self, servers: &mut Vec<Server>) -> String {
        if self.login == Login::Guest && !self.says_guest {
            self.remark("", "names no login: the server is asked as a guest");
        }
        let known = servers.iter().find(|server| server.host == self.host && server.login == self.login);
        if let Some(known) = known {
            return known.name.clone();
        }
        let mut names = servers.iter().map(|server| server.name.clone()).collect();
        let is_address = self.host.parse::<core::net::IpAddr>().is_ok();
        let label = self.host.split('.').next().unwrap_or_default();
        let name = unique(if is_address { "nas" } else { label }, "nas", &mut names);
        if matches!(self.login, Login::Inline(_)) {
            let file = credentials_of(&name);
            let message = format!(
                "move its login into {file}: username=…, password=… and domain=… (also what stands before a backslash), as far as it \
                 has them, on a line each; then `chmod 600 {file}`"
            );
            self.remark("", message);
        }
        servers.push(Server { name: name.clone(), host: self.host.clone(), login: self.login.clone() });
        name
    }

    fn share(&self, name: &str, server: &str) -> String {
        let (profile, why) = self.profile();
        let mut text = format!(
            "# line {}\n[share.{name}]\nserver = \"{server}\"\nsource = {}\nmount_point = {}\nprofile = \"{profile}\" # {why}\n",
            self.number,
            quoted(&self.source),
            quoted(&self.mount_point)
        );
        if !self.options.is_empty() {
            let options: Vec<String> = self.options.iter().map(|(name, value)| format!("{name} = {value}")).collect();
            let _ = writeln!(text, "options = {{ {} }}", options.join(", "));
        }
        text
    }

    fn profile(&self) -> (&'static str, &'static str) {
        const MEDIA: [&str; 8] = ["media", "film", "movie", "video", "music", "photo", "tv", "series"];
        const BACKUP: [&str; 4] = ["backup", "restic", "borg", "archiv"];
        let name = format!("{} {}", self.source, self.mount_point).to_lowercase();
        let speaks_of = |words: &[&str]| words.iter().any(|word| name.contains(word));
        if speaks_of(&BACKUP) {
            ("backup", "by its name")
        } else if speaks_of(&MEDIA) {
            ("media", "by its name; transcode if films are converted on it")
        } else if self.read_only {
            ("media", "it is only read")
        } else {
            ("documents", "the most careful one")
        }
    }
}

fn credentials_of(server: &str) -> String {
    format!("/etc/nasmount/{server}.cred")
}

/// A name for a table: the last part of a path, in letters that a name may have.
fn plain(text: &str, otherwise: &str) -> String {
    let last = text.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let letter = |letter: char| if letter.is_ascii_alphanumeric() || "-_".contains(letter) { letter } else { '-' };
    let name: String = last.to_lowercase().chars().map(letter).take(60).collect();
    let name = name.trim_matches('-');
    if name.is_empty() { otherwise.to_owned() } else { name.to_owned() }
}

/// The same, told apart from those that are taken.
fn unique(text: &str, otherwise: &str, taken: &mut BTreeSet<String>) -> String {
    let name = plain(text, otherwise);
    let numbered = (2..).map(|number: u32| format!("{name}-{number}"));
    let free = std::iter::once(name.clone()).chain(numbered).find(|name| !taken.contains(name));
    let free = free.unwrap_or(name);
    taken.insert(free.clone());
    free
}

/// A string of TOML.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
