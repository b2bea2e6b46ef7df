//! Units of systemd that mount a share (systemd.mount(5), systemd.automount(5)), as systemd reads them.
//!
//! Of what a unit says, `What=`, `Where=`, `Type=` and `Options=` are a line of fstab by another name. They are taken literally but for
//! specifiers: systemd knows neither quotes nor C escapes in them. A later assignment takes the place of an earlier one, drop-ins come
//! after the unit, and an empty assignment takes back what was there. All else is remarked on.

use super::fstab;
use super::import::{Place, Remark};
use crate::config::units::mount_unit;

/// A unit of the administrator's, in `/etc/systemd/system`.
#[derive(Clone, PartialEq, Eq)]
pub struct UnitFile {
    /// Its name, such as `mnt-media.mount`.
    pub name: String,
    /// Where it is.
    pub path: String,
    /// What it is.
    pub content: Content,
}

/// What a unit's file is. No `Debug`: it may have a password.
#[derive(Clone, PartialEq, Eq)]
pub enum Content {
    /// A file, and its drop-ins in their order.
    Texts(Vec<UnitText>),
    /// A link to `/dev/null`, or an empty file.
    Masked,
    /// A link to another file; the text of that one, if it could be read.
    Link(String),
    /// It could not be read, or one of its drop-ins could not; why.
    Unreadable(String),
    /// No file, but drop-ins, for a unit that is made elsewhere, such as of a line of fstab: their paths.
    DropIns(Vec<String>),
}

/// The text of one file of a unit.
#[derive(Clone, PartialEq, Eq)]
pub struct UnitText {
    /// Its path.
    pub path: String,
    /// Its text.
    pub text: String,
    /// Its permission bits.
    pub mode: u32,
}

/// What a unit mounts.
pub(super) struct Mount {
    pub(super) source: String,
    pub(super) mount_point: String,
    pub(super) options: Vec<String>,
    /// Where the options are, or else what is mounted.
    pub(super) at: Place,
    pub(super) description: Option<String>,
    /// What becomes of everything else.
    pub(super) remarks: Vec<Remark>,
}

/// One assignment.
struct Setting {
    at: Place,
    section: String,
    key: String,
    value: String,
}

/// What is known of a unit's settings at its end.
#[derive(Default)]
struct Last(Vec<Setting>);

/// What a mount unit says of the mount itself.
const MOUNTED: [&str; 4] = ["What", "Where", "Type", "Options"];

/// Units that a network mount waits for, or that wait for one, as people copy it.
const OF_THE_BOOT: &[&str] = &[
    "network.target",
    "network-pre.target",
    "network-online.target",
    "nss-lookup.target",
    "remote-fs.target",
    "remote-fs-pre.target",
    "local-fs.target",
    "multi-user.target",
    "graphical.target",
    "default.target",
    "umount.target",
    "NetworkManager.service",
    "NetworkManager-wait-online.service",
    "systemd-networkd.service",
    "systemd-networkd-wait-online.service",
    "systemd-resolved.service",
    "wpa_supplicant.service",
];

/// Reads a unit that mounts a share: `None` if it is none of CIFS, and a remark if it is one that is left alone.
pub(super) fn read(unit: &UnitFile) -> Option<Result<Mount, Remark>> {
    let left = |why: String| {
        let at = Place { file: Some(unit.path.clone()), line: 1 };
        Some(Err(Remark::new(&at, "", format!("left alone: {why}"))))
    };
    let texts = match &unit.content {
        Content::Texts(texts) => texts,
        Content::Masked | Content::DropIns(_) => return None,
        Content::Link(text) => {
            let linked = UnitText { path: unit.path.clone(), text: text.clone(), mode: 0 };
            let settings = Last(settings(&linked));
            return match is_of_cifs(&settings) {
                true => {
                    left("it is a link, and what it leads to is kept by something else: copy it here first".to_owned())
                }
                false => None,
            };
        }
        Content::Unreadable(why) => return left(why.clone()),
    };
    let settings = Last(texts.iter().flat_map(settings).collect());
    let kind = settings.of("Mount", "Type").map_or("auto", |setting| &setting.value);
    let source = &settings.of("Mount", "What")?.value;
    if let Some(why) = fstab::other_type(kind, source) {
        return Some(Err(Remark::new(&Place { file: Some(unit.path.clone()), line: 1 }, "", why)));
    }
    if !fstab::is_cifs(kind, source) {
        return None;
    }
    for key in ["What", "Where", "Options"] {
        if settings.of("Mount", key).is_some_and(|setting| expanded(&setting.value).is_none()) {
            // the letter is not repeated: it may be one of a password
            return left(format!(
                "{key}= has a specifier of systemd's (a `%` and a letter); a `%` of its own is written `%%`"
            ));
        }
    }
    let value = |key| settings.of("Mount", key).and_then(|setting| expanded(&setting.value));
    let (Some(source), Some(mount_point)) = (value("What"), value("Where")) else {
        return left("it has no Where=, so systemd does not load it".to_owned());
    };
    let mount_point = simplified(&mount_point);
    if mount_unit(&mount_point) != unit.name {
        return left(format!(
            "systemd does not load it: a unit for {mount_point} is called {}",
            mount_unit(&mount_point)
        ));
    }
    let options = value("Options").unwrap_or_default();
    let at = settings.of("Mount", "Options").or_else(|| settings.of("Mount", "What")).map(|setting| setting.at.clone());
    let mut remarks = settings.remarks();
    if options.contains([' ', '\t']) && !options.contains('"') {
        let at = at.clone().unwrap_or_default();
        remarks.push(Remark::new(
            &at,
            "Options=",
            "read without the blanks in it: mount.cifs would take them for a part of an option",
        ));
    }
    let options = fstab::options(&options).map(|option| option.trim_start().to_owned());
    Some(Ok(Mount {
        source,
        mount_point,
        options: options.filter(|option| !option.is_empty()).collect(),
        at: at.unwrap_or_default(),
        description: settings.of("Unit", "Description").map(|setting| setting.value.clone()),
        remarks,
    }))
}

/// What becomes of a share's automount unit; it is left alone if it cannot be read.
pub(super) fn read_automount(unit: &UnitFile) -> Result<Vec<Remark>, Remark> {
    let left = |why: &str| {
        let at = Place { file: Some(unit.path.clone()), line: 1 };
        Err(Remark::new(
            &at,
            "",
            format!(
                "left alone: {why}; it would stand in the way of the share: `systemctl disable --now {}`",
                unit.name
            ),
        ))
    };
    match &unit.content {
        Content::Texts(texts) => Ok(Last(texts.iter().flat_map(settings).collect()).remarks()),
        Content::Masked | Content::DropIns(_) => Ok(Vec::new()),
        Content::Link(_) => left("it is a link"),
        Content::Unreadable(why) => left(why),
    }
}

fn is_of_cifs(settings: &Last) -> bool {
    let value = |key| settings.of("Mount", key).map(|setting| setting.value.as_str());
    value("What").is_some_and(|source| fstab::is_cifs(value("Type").unwrap_or("auto"), source))
}

impl Last {
    /// The assignment that counts; an empty one takes back what was there.
    fn of(&self, section: &str, key: &str) -> Option<&Setting> {
        let last = self.0.iter().rfind(|setting| setting.section == section && setting.key == key)?;
        (!last.value.is_empty()).then_some(last)
    }

    /// An assignment that another one takes the place of; one that is taken back first is meant so.
    fn replaced(&self, index: usize, setting: &Setting) -> Option<Remark> {
        let mut later = self.0.iter().skip(index + 1);
        let next = later.find(|later| later.section == setting.section && later.key == setting.key)?;
        let is_lost = !next.value.is_empty() && next.value != setting.value;
        let message = "left out: another one comes after it, and systemd takes the last one alone";
        is_lost.then(|| Remark::new(&setting.at, &format!("{}=", setting.key), message))
    }

    fn remarks(&self) -> Vec<Remark> {
        let said = self.0.iter().enumerate().filter(|(_, setting)| !setting.value.is_empty());
        said.filter_map(|(index, setting)| {
            if setting.section == "Mount" && MOUNTED.contains(&setting.key.as_str()) {
                return self.replaced(index, setting);
            }
            let message = becomes(&setting.section, &setting.key, &setting.value)?;
            Some(Remark::new(&setting.at, &format!("{}=", setting.key), format!("left out: {message}")))
        })
        .collect()
    }
}

/// The same of an option of fstab that is an assignment by another name (systemd.mount(5), "fstab"); `None` if it is none.
pub(super) fn becomes_of_option(name: &str, value: Option<&str>) -> Option<&'static str> {
    let (section, key) = match (name, value) {
        ("x-systemd.automount", _) | ("comment", Some("systemd.automount")) => ("Automount", "What"),
        ("x-systemd.idle-timeout", _) => ("Automount", "TimeoutIdleSec"),
        ("x-systemd.mount-timeout", _) => ("Mount", "TimeoutSec"),
        ("x-systemd.rw-only", _) => ("Mount", "ReadWriteOnly"),
        ("x-systemd.requires", _) => ("Unit", "Requires"),
        ("x-systemd.wants", _) => ("Unit", "Wants"),
        ("x-systemd.after", _) => ("Unit", "After"),
        ("x-systemd.before", _) => ("Unit", "Before"),
        ("x-systemd.requires-mounts-for" | "x-systemd.wants-mounts-for", _) => ("Unit", "RequiresMountsFor"),
        ("x-systemd.wanted-by", _) => ("Install", "WantedBy"),
        ("x-systemd.required-by", _) => ("Install", "RequiredBy"),
        _ => return None,
    };
    becomes(section, key, value.unwrap_or_default())
}

/// Why an assignment has no counterpart; `None` if it has one.
fn becomes(section: &str, key: &str, value: &str) -> Option<&'static str> {
    const NEEDED: &str = "whoever needs the share is a consumer in the configuration, or says RequiresMountsFor=";
    let of_the_boot = value.split_whitespace().all(|unit| OF_THE_BOOT.contains(&unit));
    Some(match (section, key) {
        ("Mount", "What" | "Where" | "Type" | "Options") | ("Unit", "Description") | ("Automount", "Where") => {
            return None;
        }
        ("Unit", "Documentation" | "SourcePath") => "nothing depends on it",
        ("Unit", "After" | "Wants" | "Requires" | "Requisite" | "BindsTo" | "Before") if of_the_boot => {
            "nasmount mounts as soon as the server answers, and does not keep the boot waiting"
        }
        ("Unit", "Before" | "PropagatesStopTo") => NEEDED,
        ("Unit", "Wants" | "Requires" | "Requisite" | "BindsTo" | "Upholds") => {
            "nasmount starts nothing for a share: `systemctl enable` it, if nothing else has it started"
        }
        ("Unit", "DefaultDependencies") => "nasmount's own unit has the dependencies that it needs",
        ("Unit", _) if key.starts_with("Condition") || key.starts_with("Assert") => {
            "nasmount mounts the share under all conditions; `nasmount maintenance` keeps its hands off"
        }
        ("Unit", "OnFailure" | "OnSuccess") => "a share that is away fails no unit; `nasmount status` says how it is",
        ("Unit", _) => "nasmount mounts as soon as the server answers, whatever other units do",
        ("Mount", "TimeoutSec") => "nasmount bounds each attempt itself, and makes another",
        ("Mount", "ForceUnmount" | "LazyUnmount") => "nasmount gives a share up by itself when the hold is over",
        ("Mount" | "Automount", "DirectoryMode") => "nasmount makes the directory, and keeps it closed under the share",
        ("Mount", "SloppyOptions") => "options that the kernel does not know are named instead",
        ("Mount", "ReadWriteOnly") => "a share is read-only if `ro` is among its options, and not otherwise",
        ("Mount", "Environment") if value.contains("PASSWD=") => {
            "its password is not taken over: put it into the credentials file with `nasmount login`"
        }
        ("Mount", _) => "no process of this unit mounts the share any more",
        ("Automount", "TimeoutIdleSec") => "the share stays mounted, so that it is there when it is needed",
        ("Automount", _) => "the share is mounted always; an access waits for nothing",
        ("Install", "WantedBy" | "RequiredBy" | "UpheldBy") if of_the_boot => {
            "nasmount is started at boot, and mounts it"
        }
        ("Install", "WantedBy" | "RequiredBy" | "UpheldBy") => NEEDED,
        ("Install", _) => "nasmount's own unit is not enabled: it is there as long as the share is configured",
        _ => "systemd does not read it either",
    })
}

/// The assignments of a file.
fn settings(file: &UnitText) -> Vec<Setting> {
    let (mut settings, mut section) = (Vec::new(), String::new());
    for (line, text) in logical_lines(&file.text) {
        let text = text.trim();
        if let Some(name) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
            section = name.to_owned();
        } else if let Some((key, value)) = text.split_once('=') {
            let at = Place { file: Some(file.path.clone()), line };
            let (key, value) = (key.trim().to_owned(), value.trim().to_owned());
            settings.push(Setting { at, section: section.clone(), key, value });
        }
    }
    settings
}

/// Lines with the number of their first one: a backslash at the end joins it with the next by a blank, over comments in between.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut begun: Option<(usize, String)> = None;
    for (number, line) in (1..).zip(text.trim_start_matches('\u{feff}').lines()) {
        if line.trim_start().starts_with(['#', ';']) {
            continue;
        }
        let (first, before) = begun.take().unwrap_or((number, String::new()));
        let continues = line.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1;
        match line.strip_suffix('\\').filter(|_| continues) {
            Some(part) => begun = Some((first, format!("{before}{part} "))),
            None => lines.push((first, before + line)),
        }
    }
    lines.extend(begun);
    lines
}

/// `%%` is `%`; `None` if there is another specifier, which only systemd can expand. A `%` before anything but a letter is one itself.
fn expanded(value: &str) -> Option<String> {
    let mut out = String::new();
    let mut letters = value.chars().peekable();
    while let Some(letter) = letters.next() {
        out.push(letter);
        match letters.peek().copied() {
            Some('%') if letter == '%' => drop(letters.next()),
            Some(next) if letter == '%' && next.is_ascii_alphabetic() => return None,
            _ => {}
        }
    }
    Some(out)
}

/// Without repeated slashes, and none at the end.
fn simplified(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if path.starts_with('/') { format!("/{}", parts.join("/")) } else { parts.join("/") }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn unit(texts: &[&str]) -> UnitFile {
        let text = |(index, text): (usize, &&str)| UnitText {
            path: format!("/{index}"),
            text: (*text).to_owned(),
            mode: 0o644,
        };
        let content = Content::Texts(texts.iter().enumerate().map(text).collect());
        UnitFile { name: "mnt-films.mount".into(), path: "/0".into(), content }
    }

    fn read(texts: &[&str]) -> Option<Result<Mount, Remark>> {
        super::read(&unit(texts))
    }

    fn mount(texts: &[&str]) -> Mount {
        read(texts).unwrap().unwrap_or_else(|remark| panic!("{}", remark.message))
    }

    const FILMS: &str = "[Mount]\nWhat=//nas/films\nWhere=/mnt/films\nType=cifs\nOptions=guest,ro\n";

    #[test]
    fn lines_are_joined_and_comments_skipped_as_systemd_does() {
        let text = "\u{feff}# one\n[Mount]\nWhat = //nas/a \\\n# two\n ; three\n  b\r\nX=a\\\\\nY=c\\";
        let lines = logical_lines(text);
        let lines: Vec<_> = lines.iter().map(|(number, line)| (*number, line.as_str())).collect();
        assert_eq!(lines, [(2, "[Mount]"), (3, "What = //nas/a    b"), (7, "X=a\\\\"), (8, "Y=c ")]);
    }

    #[test]
    fn the_last_assignment_counts_and_an_empty_one_takes_back() {
        let films =
            mount(&[FILMS, "[Mount]\nOptions=\n", "[Mount]\nOptions=ro,uid=bob\nOptions=rw, uid=1000,\\\n  gid=5\n"]);
        assert_eq!(films.options, ["rw", "uid=1000", "gid=5"]);
        assert_eq!((films.at.file.as_deref(), films.at.line), (Some("/2"), 3));
        assert!(mount(&[FILMS, "[Mount]\nOptions=\n"]).options.is_empty());
        assert!(read(&[&FILMS.replace("//nas", "nas:"), "[Mount]\nType=nfs\n"]).is_none());
        let odd = read(&[FILMS, "[Mount]\nType=smbfs\n"]).unwrap().err().unwrap();
        assert!(odd.message.contains("no smbfs"), "{}", odd.message);
    }

    #[test]
    fn only_specifiers_are_expanded_and_those_of_systemd_are_not() {
        assert_eq!(expanded("50%% of %1 %").as_deref(), Some("50% of %1 %"));
        assert_eq!(expanded("/home/%u"), None);
        let quoted = mount(&[&FILMS.replace("guest,ro", "username=bob,password=\"a,b\",x-y='c d'")]);
        assert_eq!(quoted.options, ["username=bob", "password=a,b", "x-y='c d'"]);
        let refused = read(&[&FILMS.replace("guest", "user=bob%hunter2")]).unwrap().err().unwrap();
        assert!(refused.message.starts_with("left alone: Options= has a specifier"), "{}", refused.message);
        assert!(!refused.message.contains("%h"), "{}", refused.message);
    }

    #[test]
    fn what_systemd_would_not_load_is_left_alone() {
        for (text, why) in [
            (FILMS.replace("/mnt/films", "/mnt/movies"), "called mnt-movies.mount"),
            (FILMS.replace("Where", "Place"), "no Where="),
        ] {
            let remark = read(&[&text]).unwrap().err().unwrap();
            assert!(remark.message.contains(why), "{}", remark.message);
        }
        assert_eq!(mount(&[&FILMS.replace("/mnt/films", "//mnt/./films/")]).mount_point, "/mnt/films");
    }

    #[test]
    fn every_other_setting_is_remarked_on() {
        let text = format!(
            "[Unit]\nDescription=Films\nAfter=network-online.target\n{FILMS}TimeoutSec=30\nEnvironment=PASSWD=hunter2\nForceUnmount=\n[Install]\nWantedBy=x.service\n[X-Mine]\na=b\n"
        );
        let films = mount(&[&text]);
        assert_eq!(films.description.as_deref(), Some("Films"));
        let remarks: Vec<_> = films.remarks.iter().map(|remark| (remark.line, remark.option.as_str())).collect();
        assert_eq!(remarks, [(3, "After="), (9, "TimeoutSec="), (10, "Environment="), (13, "WantedBy="), (15, "a=")]);
        let password = &films.remarks[2].message;
        assert!(password.contains("its password is not taken over") && !password.contains("hunter2"), "{password}");
    }
}
