//! What the CIFS lines of fstab(5) and mount units of systemd become in nasmount's configuration: a text to be read and taken over by a
//! person, and a word about every option that is not simply kept.
//!
//! Passwords go nowhere but into a login's own file: neither text nor remarks have them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use serde::Serialize;

use super::catalogue::{self, Form};
use super::fstab::{self, Entry};
use super::inline_login::{Rest, credentials_text, has_password, is_guest};
use super::mount_unit::{self, Content, Mount, UnitFile};
use super::outdated::is_outdated;
use crate::config::settings::{CredentialSource, Settings};
use crate::config::units::mount_unit as unit_of;
use crate::config::{opposite, same_host};

/// What mounts shares on a host without nasmount.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// The text of its fstab.
    pub fstab: &'a str,
    /// Its administrator's `.mount` and `.automount` units, by name.
    pub units: &'a [UnitFile],
}

/// The result.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Import {
    /// For `/etc/nasmount/nasmount.toml`; empty if there was no line.
    pub toml: String,
    /// Lines of fstab that it stands for, from 1.
    pub lines: Vec<usize>,
    /// Units that it stands for, by name.
    pub units: Vec<String>,
    /// What else there is to know, in the order of the lines.
    pub remarks: Vec<Remark>,
    /// Where each of its tables comes from, with the first line of the table, from 1.
    #[serde(skip)]
    origins: Vec<(usize, Place)>,
    /// The shares that it has, in the order of the lines.
    #[serde(skip)]
    pub shares: Vec<Share>,
    /// Credentials files that it needs, and that are to be made.
    #[serde(skip)]
    pub logins: Vec<Login>,
}

/// A share that stood on a line, or in a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Its name in the configuration.
    pub name: String,
    /// Where it is mounted.
    pub mount_point: String,
}

/// A login that stood there.
#[derive(Clone, Debug)]
pub struct Login {
    /// The file in which it belongs.
    pub path: PathBuf,
    /// Its text.
    pub text: SecretString,
}

/// A line of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// A unit's file; none is fstab.
    pub(super) file: Option<String>,
    /// From 1.
    pub(super) line: usize,
}

/// About one option, or a line or a unit as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Remark {
    /// File of the unit; none is fstab.
    pub file: Option<String>,
    /// Its line, from 1.
    pub line: usize,
    /// Name of the option, or of a unit's setting with its `=`; empty for the whole.
    pub option: String,
    /// What becomes of it, and why.
    pub message: String,
}

/// A server as its lines name it.
struct Server {
    name: String,
    host: String,
    login: Means,
    /// What names it first; `None` if the configuration has it already.
    at: Option<Place>,
}

/// One line, or unit, on its way.
struct Line<'text> {
    at: Place,
    /// What stands above the share.
    comment: String,
    host: String,
    source: String,
    mount_point: String,
    login: Means,
    says_guest: bool,
    kerberos: bool,
    /// What it says of its login itself.
    said: Vec<String>,
    /// As they stand in the table, in the order of fstab.
    options: Vec<(String, String)>,
    remarks: &'text mut Vec<Remark>,
}

const REST: &str = "left out: what follows its comma is no option, but perhaps the rest of the password (mount.cifs ends one at a comma), so \
                    it is not shown; `nasmount login` writes the whole one into the credentials file";

/// How a server is logged in to. No `Debug`: it may have a password.
#[derive(Clone, Default, PartialEq, Eq)]
enum Means {
    #[default]
    Guest,
    Kerberos,
    File(String),
    /// A credential of systemd's, which fstab does not have.
    Systemd,
    /// On the line itself: the text of the file that it becomes.
    Inline(String),
}

impl Import {
    /// What a line of its configuration comes from: the file of a unit, or none for fstab, and the line there.
    pub fn origin(&self, line: usize) -> Option<(Option<&str>, usize)> {
        let (_, Place { file, line }) = self.origins.iter().rfind(|(first, _)| *first <= line)?;
        Some((file.as_deref(), *line))
    }
}

impl Remark {
    pub(super) fn new(at: &Place, option: &str, message: impl Into<String>) -> Self {
        Self { file: at.file.clone(), line: at.line, option: option.to_owned(), message: message.into() }
    }
}

/// Translates what mounts shares into what is to be added to a configuration, with credentials files in `directory`.
pub fn import(sources: Sources<'_>, existing: Option<&Settings>, directory: &Path) -> Import {
    let mut import = Import::default();
    let mut tables: Vec<(Place, String)> = Vec::new();
    let mut servers: Vec<Server> = existing.into_iter().flat_map(known_servers).collect();
    let mut names = existing.into_iter().flat_map(|known| known.shares.keys()).map(ToString::to_string).collect();
    let mut take = |mut line: Line<'_>| {
        let server = line.server(&mut servers, directory);
        let name = unique(&line.mount_point, "share", &mut names);
        tables.push((line.at.clone(), line.share(&name, &server)));
        Share { name, mount_point: line.mount_point }
    };
    for (index, text) in sources.fstab.lines().enumerate() {
        let Some(line) = read_line(index + 1, text, &mut import.remarks) else { continue };
        import.shares.push(take(line));
        import.lines.push(index + 1);
    }
    for unit in sources.units {
        let (Some(line), automount) = read_unit(unit, sources.units, &mut import.remarks) else { continue };
        import.shares.push(take(line));
        import.units.extend(std::iter::once(unit.name.clone()).chain(automount));
    }
    let shares = import.shares.iter().map(|share| share.mount_point.as_str());
    let known = existing.into_iter().flat_map(|known| known.shares.values()).filter_map(|it| it.mount_point.to_str());
    import.remarks.extend(dropped_in(sources.units, &shares.clone().map(unit_of).collect()));
    import.remarks.extend(masked(sources.units, &shares.chain(known).map(unit_of).collect()));
    written(servers, &tables, directory, &mut import);
    import
}

/// The tables of new servers and all shares, and the logins that they need.
fn written(servers: Vec<Server>, shares: &[(Place, String)], directory: &Path, import: &mut Import) {
    let Import { toml, logins, origins, .. } = import;
    for Server { name, host, login, at } in servers {
        let Some(at) = at else { continue };
        origins.push((toml.lines().count() + 1, at));
        let _ = writeln!(toml, "[server.{name}]\nhost = {}", quoted(&host));
        match login {
            Means::Guest | Means::Kerberos | Means::Systemd => {}
            Means::File(file) => drop(writeln!(toml, "credentials = {}", quoted(&file))),
            Means::Inline(text) => {
                let path = credentials_of(&name, directory);
                let _ = writeln!(toml, "credentials = {}", quoted(&path.to_string_lossy()));
                logins.push(Login { path, text: text.into() });
            }
        }
        toml.push('\n');
    }
    for (index, (at, table)) in shares.iter().enumerate() {
        toml.push_str(if index > 0 { "\n" } else { "" });
        origins.push((toml.lines().count() + 1, at.clone()));
        toml.push_str(table);
    }
}

/// Masked units that would keep systemd from the one that nasmount makes for a share.
fn masked(units: &[UnitFile], wanted: &BTreeSet<String>) -> impl Iterator<Item = Remark> {
    let masked = units.iter().filter(|unit| matches!(unit.content, Content::Masked) && wanted.contains(&unit.name));
    masked.map(|UnitFile { name, path, .. }| {
        let message =
            format!("left alone: it is masked, and nothing can require the share's path: `systemctl unmask {name}`");
        Remark::new(&Place { file: Some(path.clone()), line: 1 }, "", message)
    })
}

/// Drop-ins of the units that systemd's generator makes of lines of fstab.
fn dropped_in(units: &[UnitFile], wanted: &BTreeSet<String>) -> Vec<Remark> {
    let said = |unit: &UnitFile| {
        let Content::DropIns(paths) = &unit.content else { return Vec::new() };
        let message = if unit.name.ends_with(".automount") {
            "has no effect any more: the share has no automount unit, and the file can go"
        } else {
            "left alone: it goes for nasmount's unit of that name then, where its Options= have no effect and its other settings have; \
             take out what was meant for fstab's mount"
        };
        let of = |path: &String| Remark::new(&Place { file: Some(path.clone()), line: 1 }, "", message);
        paths.iter().filter(|_| wanted.contains(&unit.name.replace(".automount", ".mount"))).map(of).collect()
    };
    units.iter().flat_map(said).collect()
}

fn known_servers(settings: &Settings) -> impl Iterator<Item = Server> {
    settings.servers.iter().map(|(name, server)| Server {
        name: name.to_string(),
        host: server.host.to_string(),
        login: match &server.credentials {
            CredentialSource::Guest => Means::Guest,
            CredentialSource::File(path) => Means::File(path.to_string_lossy().into_owned()),
            CredentialSource::Systemd(_) => Means::Systemd,
        },
        at: None,
    })
}

/// `None` if the line is none of CIFS, or cannot be one of nasmount's.
fn read_line<'text>(number: usize, text: &str, remarks: &'text mut Vec<Remark>) -> Option<Line<'text>> {
    let at = Place { file: None, line: number };
    if fstab::is_other_than_utf8(text) {
        let message = "left out: with its octal escapes read it is not UTF-8, which names in the configuration are";
        remarks.push(Remark::new(&at, "", message));
        return None;
    }
    if let Some(why) = fstab::why_not_cifs(text) {
        remarks.push(Remark::new(&at, "", why));
        return None;
    }
    let entry = fstab::entry(text).filter(|entry| fstab::is_cifs(&entry.kind, &entry.source))?;
    if fstab::is_broken(text) {
        let message = "left out, as mount(8) does: there is a blank within its options, or more than six fields";
        remarks.push(Remark::new(&at, "", message));
        return None;
    }
    Line::new(at, format!("line {number}"), entry, remarks)
}

/// The same of a unit; and its automount unit, if it has one.
fn read_unit<'text>(
    unit: &UnitFile,
    all: &[UnitFile],
    remarks: &'text mut Vec<Remark>,
) -> (Option<Line<'text>>, Option<String>) {
    let Mount { source, mount_point, options, at, description, remarks: said } = match mount_unit::read(unit) {
        Some(Ok(mount)) => mount,
        Some(Err(left)) => {
            remarks.push(left);
            return (None, None);
        }
        None => return (None, None),
    };
    let entry = Entry { source, mount_point, kind: "cifs".to_owned(), options };
    if !Line::is_possible(&at, &entry, remarks) {
        return (None, None);
    }
    remarks.extend(said);
    let name = unit.name.replace(".mount", ".automount");
    let automount = all.iter().find(|other| other.name == name).map(|automount| {
        let said = mount_unit::read_automount(automount);
        let taken = said.is_ok() && !matches!(automount.content, Content::Masked | Content::DropIns(_));
        remarks.extend(said.unwrap_or_else(|left| vec![left]));
        taken.then_some(name)
    });
    let comment = match description {
        Some(description) => format!("{}: {}", unit.name, description.replace(char::is_control, " ")),
        None => unit.name.clone(),
    };
    (Line::new(at, comment, entry, remarks), automount.flatten())
}

impl<'text> Line<'text> {
    /// Can it be one of nasmount's? Why not is remarked on.
    fn is_possible(at: &Place, entry: &Entry, remarks: &mut Vec<Remark>) -> bool {
        let Entry { source, mount_point, options, .. } = entry;
        let spec = source.replace('\\', "/");
        let port = options.iter().find_map(|option| option.strip_prefix("port=")).filter(|port| *port != "445");
        let host = spec.split_once("//").map(|(_, rest)| rest.split('/').next().unwrap_or_default());
        let why = if host.is_some_and(|host| host.contains('@')) {
            "left out: there is a login in its source, which is not repeated here; logins are in credentials files"
                .to_owned()
        } else if let Some(port) = port {
            format!("left out: its server is asked at port {port}, and nasmount asks at 445 only")
        } else if let Some(why) = is_outdated(options) {
            why
        } else if !spec.strip_prefix("//").is_some_and(|rest| rest.contains('/') && !rest.starts_with('/')) {
            format!("left out: {spec} is not //SERVER/SHARE")
        } else if !mount_point.starts_with('/') {
            format!("left out: {mount_point} is not a directory's path")
        } else {
            return true;
        };
        remarks.push(Remark::new(at, "", why));
        false
    }

    fn new(at: Place, comment: String, entry: Entry, remarks: &'text mut Vec<Remark>) -> Option<Self> {
        if !Self::is_possible(&at, &entry, remarks) {
            return None;
        }
        let Entry { source, mount_point, options, .. } = entry;
        let spec = source.replace('\\', "/");
        let (host, source) = spec.strip_prefix("//").and_then(|rest| rest.split_once('/'))?;
        let mount_point =
            if mount_point.len() > 1 { mount_point.trim_end_matches('/').to_owned() } else { mount_point };
        let mut line = Self {
            at,
            comment,
            host: host.to_owned(),
            source: source.trim_matches('/').to_owned(),
            mount_point,
            login: Means::default(),
            says_guest: false,
            kerberos: false,
            said: Vec::new(),
            options: Vec::new(),
            remarks,
        };
        let mut rest = Rest::default();
        let (rests, options): (Vec<_>, Vec<_>) = options.into_iter().partition(|option| rest.is(option));
        if !rests.is_empty() {
            line.remark("password", REST); // without it
        }
        for option in options {
            match option.split_once('=') {
                Some((name, value)) if value.contains('\n') => {
                    line.remark(name, "left out: a line feed is in its value");
                }
                _ => line.take(&option),
            }
        }
        line.settle_login();
        Some(line)
    }

    fn remark(&mut self, option: &str, message: impl Into<String>) {
        self.remarks.push(Remark::new(&self.at, option, message));
    }

    fn take(&mut self, option: &str) {
        let (name, value) = option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)));
        match (name, value) {
            ("credentials" | "cred", Some(file)) => self.login = Means::File(file.to_owned()),
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
            ("port", Some("445")) | ("auto" | "defaults" | "nofail" | "_netdev" | "soft", None) => {}
            ("noauto", None) => {
                self.remark(name, "left out: nasmount mounts it at its start; `nasmount unmount` takes it off")
            }
            ("fmask", Some(mode)) => self.keep("file_mode", Some(mode)),
            ("dmask" | "dirmode", Some(mode)) => self.keep("dir_mode", Some(mode)),
            _ => self.take_tuning(name, value),
        }
    }

    /// What stands beside a file belongs into it.
    fn settle_login(&mut self) {
        let said = std::mem::take(&mut self.said);
        let names = || said.iter().map(|option| option.split('=').next().unwrap_or_default());
        if self.kerberos {
            let file = matches!(self.login, Means::File(_)).then_some("credentials");
            names().chain(file).for_each(|name| self.remark(name, "left out: Kerberos has the login"));
            self.login = Means::Kerberos;
        } else if let Means::File(file) = &self.login {
            let message = format!("belongs into {file}, on a line of its own");
            names().for_each(|name| self.remark(name, message.clone()));
        } else if !has_password(&said) && (said.is_empty() || self.says_guest || is_guest(&said)) {
            self.says_guest |= !said.is_empty();
        } else {
            self.login = Means::Inline(credentials_text(&said));
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
                self.remark(name, "left out: another one comes after it");
            }
            ("vers", Some("3.1.1" | "3.11" | "default")) => self.options.retain(|(before, _)| before != name),
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
        self.take_back_opposite(name);
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

    fn has(&self, name: &str) -> bool {
        self.options.iter().any(|(option, _)| option == name)
    }

    /// The name of its server, which it may be the first to name.
    fn server(&mut self, servers: &mut Vec<Server>, directory: &Path) -> String {
        if self.login == Means::Guest && !self.says_guest {
            self.remark("", "names no login: the server is asked as a guest");
        }
        let known = servers
            .iter()
            .find(|server| same_host(&server.host) == same_host(&self.host) && server.login == self.login);
        if let Some(known) = known {
            return known.name.clone();
        }
        let mut names = servers.iter().map(|server| server.name.clone()).collect();
        let is_address = self.host.parse::<core::net::IpAddr>().is_ok();
        let label = self.host.split('.').next().unwrap_or_default();
        let name = unique(if is_address { "nas" } else { label }, "nas", &mut names);
        if matches!(self.login, Means::Inline(_)) {
            let file = credentials_of(&name, directory);
            let file = file.display();
            let message = format!(
                "its login goes into {file}, which only root can read: `--apply` writes it; by hand: username=NAME, password=PASSWORD and \
                 domain=DOMAIN (also what stands before a backslash), as far as it has them, on a line each, then `chmod 600 {file}`"
            );
            self.remark("", message);
        }
        let (host, login) = (self.host.clone(), self.login.clone());
        servers.push(Server { name: name.clone(), host, login, at: Some(self.at.clone()) });
        name
    }

    fn share(&self, name: &str, server: &str) -> String {
        let (profile, why) = self.profile();
        let mut text = format!(
            "# {}\n[share.{name}]\nserver = \"{server}\"\nsource = {}\nmount_point = {}\nprofile = \"{profile}\" # {why}\n",
            self.comment,
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
        } else if self.has("ro") {
            ("media", "it is only read")
        } else {
            ("documents", "the most careful one")
        }
    }
}

fn credentials_of(server: &str, directory: &Path) -> PathBuf {
    directory.join(format!("{server}.cred"))
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
