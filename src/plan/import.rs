//! What the CIFS lines of fstab(5) and mount units of systemd become in nasmount's configuration: a text to be read and taken over by a
//! person, and a word about every option that is not simply kept.
//!
//! Passwords go nowhere but into a login's own file: neither text nor remarks have them.

mod login;
mod nested;
mod options;
mod possible;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use serde::Serialize;

pub use self::nested::Nested;
use self::possible::{Around, Source};
use super::fstab::{self, Entry};
use super::inline_login::Rest;
use super::mount_unit::{self, Content, Mount, UnitFile};
use crate::config::credentials::Credentials;
use crate::config::same_host;
use crate::config::settings::{CredentialSource, Settings};
use crate::config::units::mount_unit as unit_of;

/// What mounts shares on a host without nasmount.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// The text of its fstab.
    pub fstab: &'a str,
    /// What that file is called.
    pub name: &'a str,
    /// Its administrator's `.mount` and `.automount` units, by name.
    pub units: &'a [UnitFile],
}

/// What a credentials file says; `None` if it cannot be looked into.
pub type Look<'a> = &'a dyn Fn(&Path) -> Option<Credentials>;

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
    /// What holds it back.
    #[serde(skip)]
    conflicts: Vec<Conflict>,
    /// Other lines of fstab that lie in or around its shares, or on them.
    #[serde(skip)]
    pub nested: Vec<Nested>,
    /// The shares that it has, in the order of the lines.
    #[serde(skip)]
    pub shares: Vec<Share>,
    /// Credentials files that it needs, and that are to be made.
    #[serde(skip)]
    pub logins: Vec<Login>,
}

/// A part of a line that has no place in the configuration, and without which the share would not be the same.
#[derive(Clone, Debug)]
pub struct Conflict {
    at: Place,
    /// The option.
    pub option: String,
    /// What is the matter.
    pub message: String,
    /// What to do about it.
    pub help: String,
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
    /// How much of that stands before its credentials file.
    said_before_file: usize,
    /// As they stand in the table, in the order of fstab.
    options: Vec<(String, String)>,
    conflicts: Vec<Conflict>,
    remarks: &'text mut Vec<Remark>,
    /// Which of its options is looked at, from 1.
    number: usize,
}

/// What is said of the options with these numbers.
fn left_of_password(numbers: &[usize]) -> String {
    let options = if numbers.len() == 1 { "option" } else { "options" };
    let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    format!(
        "left out: what follows its comma ({options} {} of the line) is no option, but perhaps the rest of the password (mount.cifs ends \
         one at a comma), so it is not shown; `nasmount login` writes the whole one into the credentials file",
        numbers.join(", ")
    )
}

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

    /// What holds it back, with the line of its configuration.
    pub fn conflicts(&self) -> impl Iterator<Item = (usize, &Conflict)> {
        let line = |at: &Place| self.origins.iter().rfind(|(_, place)| place == at).map_or(1, |(line, _)| *line);
        self.conflicts.iter().map(move |conflict| (line(&conflict.at), conflict))
    }
}

impl Remark {
    pub(super) fn new(at: &Place, option: &str, message: impl Into<String>) -> Self {
        Self { file: at.file.clone(), line: at.line, option: option.to_owned(), message: message.into() }
    }
}

/// Translates what mounts shares into what is to be added to a configuration, with credentials files in `directory`.
pub fn import(sources: Sources<'_>, existing: Option<&Settings>, directory: &Path, look: Look<'_>) -> Import {
    let mut import = Import::default();
    let mut tables: Vec<(Place, String)> = Vec::new();
    let mut servers: Vec<Server> = existing.into_iter().flat_map(known_servers).collect();
    let mut names = existing.into_iter().flat_map(|known| known.shares.keys()).map(ToString::to_string).collect();
    let (mut conflicts, mut seen, mut same) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
    let around = Around { existing, fstab: sources.name, look };
    let mut take = |mut line: Line<'_>| {
        let server = line.server(&mut servers, directory, around);
        conflicts.append(&mut line.conflicts);
        let name = unique(&line.mount_point, "share", &mut names);
        tables.push((line.at.clone(), line.share(&name, &server)));
        Share { name, mount_point: line.mount_point }
    };
    for (index, text) in sources.fstab.lines().enumerate() {
        let before = import.remarks.len();
        let mut first = same.get(text).copied();
        if first.is_none() {
            let Some(line) = read_line(index + 1, text, around, &mut import.remarks) else { continue };
            first = seen.get(&line.place()).copied();
            seen.entry(line.place()).or_insert(index + 1);
            same.insert(text, first.unwrap_or(index + 1));
            if first.is_none() {
                import.shares.push(take(line));
            }
        }
        import.lines.push(index + 1);
        if let Some(first) = first {
            import.remarks.truncate(before); // what would become of its options
            import.remarks.push(Remark::new(&Place { file: None, line: index + 1 }, "", twice(first)));
        }
    }
    for unit in sources.units {
        let (Some(line), automount) = read_unit(unit, sources.units, around, &mut import.remarks) else { continue };
        import.shares.push(take(line));
        import.units.extend(std::iter::once(unit.name.clone()).chain(automount));
    }
    import.conflicts = conflicts;
    import.nested = nested::nested(sources.fstab, &import.lines, &import.shares);
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

/// Of a line that mounts what an earlier one does.
fn twice(first: usize) -> String {
    format!(
        "mounts the same as line {first} in the same place, and becomes a comment with it: the first one counts, as it does for systemd"
    )
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
fn read_line<'text>(
    number: usize,
    text: &str,
    around: Around<'_>,
    remarks: &'text mut Vec<Remark>,
) -> Option<Line<'text>> {
    let at = Place { file: None, line: number };
    if let Some(several) = words::several_lines(&at, text) {
        remarks.push(several);
        return None;
    }
    remarks.extend(words::oddities(&at, text));
    if let Some(why) = fstab::why_not_utf8(text).or_else(|| fstab::why_not_cifs(text)) {
        remarks.push(Remark::new(&at, "", why));
        return None;
    }
    let entry = fstab::entry(text).filter(|entry| fstab::is_cifs(&entry.kind, &entry.source))?;
    if fstab::is_broken(text) {
        let message = "left out, as mount(8) does: behind its options stands what is no number (is there a blank within the options, or a \
                       comment?)";
        remarks.push(Remark::new(&at, "", message));
        return None;
    }
    if !Line::is_possible(&at, &entry, around, remarks) {
        return None;
    }
    if fstab::is_quote_open(text) {
        let message = "a quotation mark among its options has no other one: see that its password is the one that is meant, and no option \
                       is missing";
        remarks.push(Remark::new(&at, "", message));
    }
    Line::new(at, format!("line {number}"), entry, around.look, remarks)
}

/// The same of a unit; and its automount unit, if it has one.
fn read_unit<'text>(
    unit: &UnitFile,
    all: &[UnitFile],
    around: Around<'_>,
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
    if !Line::is_possible(&at, &entry, around, remarks) {
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
    (Line::new(at, comment, entry, around.look, remarks), automount.flatten())
}

impl<'text> Line<'text> {
    fn new(at: Place, comment: String, entry: Entry, look: Look<'_>, remarks: &'text mut Vec<Remark>) -> Option<Self> {
        let before = remarks.len();
        let Entry { source, mount_point, options, .. } = entry;
        let spec = source.replace('\\', "/");
        let Source { host, share, .. } = Source::of(&spec)?;
        let mount_point =
            if mount_point.len() > 1 { mount_point.trim_end_matches('/').to_owned() } else { mount_point };
        let mut line = Self {
            at,
            comment,
            host: host.to_owned(),
            source: share.to_owned(),
            mount_point,
            login: Means::default(),
            says_guest: false,
            kerberos: false,
            said: Vec::new(),
            said_before_file: 0,
            options: Vec::new(),
            conflicts: Vec::new(),
            remarks,
            number: 0,
        };
        let mut rest = Rest::default();
        let (rests, options): (Vec<_>, Vec<_>) =
            (1..).zip(options).partition(|(_, option): &(usize, String)| rest.is(option));
        if !rests.is_empty() {
            let numbers: Vec<usize> = rests.iter().map(|(number, _)| *number).collect();
            line.remark("password", left_of_password(&numbers));
        }
        for (number, option) in &options {
            line.number = *number;
            match option.split_once('=') {
                Some((name, value)) if value.contains('\n') => {
                    line.remark(name, "left out: a line feed is in its value");
                }
                _ => line.take(option),
            }
        }
        line.hold_back_misspelt(&options, &rests);
        if line.conflicts.is_empty() {
            line.settle_login(look);
        } else {
            line.remarks.truncate(before); // what would become of its other options
            line.remark_unseen(&rests);
        }
        if let Some((option, why)) = line.refused() {
            line.remarks.truncate(before); // what would become of its other options
            line.remark(&option, why);
            return None;
        }
        Some(line)
    }

    fn remark(&mut self, option: &str, message: impl Into<String>) {
        self.remarks.push(Remark::new(&self.at, option, message));
    }

    /// What it mounts, and where.
    fn place(&self) -> (String, String, String) {
        (same_host(&self.host).to_string(), self.source.clone(), self.mount_point.clone())
    }

    fn has(&self, name: &str) -> bool {
        self.options.iter().any(|(option, _)| option == name)
    }

    /// The name of its server, which it may be the first to name.
    fn server(&mut self, servers: &mut Vec<Server>, directory: &Path, around: Around<'_>) -> String {
        if self.login == Means::Guest && !self.says_guest && self.conflicts.is_empty() {
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
        let base = if is_address { "nas" } else { self.host.split('.').next().unwrap_or_default() };
        let mut name = unique(base, "nas", &mut names);
        while matches!(self.login, Means::Inline(_)) && around.is_login(&credentials_of(&name, directory)) {
            name = unique(base, "nas", &mut names);
        }
        if let Means::Inline(text) = &self.login {
            let file = credentials_of(&name, directory);
            let file = file.display();
            let second = text.lines().any(|line| line.starts_with("password2="));
            let second = if second { ", password2=PASSWORD (its second one)" } else { "" };
            let message = format!(
                "its login goes into {file}, which only root can read: `--apply` writes it; by hand: username=NAME, \
                 password=PASSWORD{second} and domain=DOMAIN (also what stands before a backslash), as far as it has them, on a line each, then `chmod 600 {file}`"
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
    let mut name: String = last.to_lowercase().chars().map(letter).take(60).collect();
    while name.contains("--") {
        name = name.replace("--", "-");
    }
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
