//! What is wrong with a configuration, and how it is said.

use std::fmt;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Element, Level, Origin as SnippetOrigin, Renderer, Snippet};

use super::source::{Files, Origin, Place};
use super::{escaped, escaped_lines, shown};

/// Kind of a problem; stable words for `--json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum InvalidKind {
    /// A file cannot be read.
    Unreadable,
    /// The file is not TOML.
    Syntax,
    /// A key that nasmount does not know.
    UnknownKey,
    /// A string where a number belongs, and the like.
    WrongType,
    /// A value of the right type that cannot be understood: a duration, a size, a word.
    BadValue,
    /// A name of a share, a server or a unit that cannot be one.
    BadName,
    /// A path that cannot be a mount point or a source.
    BadPath,
    /// A number outside its limits.
    OutOfRange,
    /// A value longer than what the kernel takes.
    TooLong,
    /// A required key is absent.
    Missing,
    /// A reference to a server or a profile that is not there.
    UnknownReference,
    /// Two things that exclude each other.
    Conflict,
    /// Something that nasmount does itself, or must not be done here.
    NotAllowed,
    /// Part of the format, not of this release.
    NotSupported,
    /// An order of time-outs that cannot hold.
    TimeoutOrder,
    /// A credentials file that cannot be used.
    Credentials,
    /// Valid, but worth a second thought.
    Doubtful,
}

/// One statement about the configuration: where, what, and what to do. It holds no secret: see [`Place::excerpt`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// What kind of statement.
    pub kind: InvalidKind,
    /// Where.
    pub place: Place,
    /// The key with its path, such as `share.media.hold_for`; empty where there is none.
    pub key: String,
    /// What is the matter: lower case, no full stop.
    pub message: String,
    /// What to do about it.
    pub help: String,
    /// Another place that plays a part, and which.
    pub related: Option<(Place, String)>,
}

/// A reason why a configuration is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid(pub Notice);

/// Something that is probably not meant, in a configuration that is used nevertheless.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning(pub Notice);

/// Whether the rendered text may contain terminal colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// Escape sequences for a terminal.
    Always,
    /// Plain text.
    Never,
}

impl Invalid {
    /// The problem in rustc's style, without a line break at the end.
    pub fn render(&self, colour: Colour) -> String {
        self.0.render(Level::ERROR, colour)
    }
}

impl Warning {
    /// The warning in rustc's style, without a line break at the end.
    pub fn render(&self, colour: Colour) -> String {
        self.0.render(Level::WARNING, colour)
    }
}

/// One line: `file:line:column: key: message`.
impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { file, line, column, .. } = &self.place;
        write!(f, "{}:{line}:{column}: {}", shown(file), self.title())
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Invalid {}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Notice {
    fn title(&self) -> String {
        if self.key.is_empty() { escaped(&self.message) } else { escaped(&format!("{}: {}", self.key, self.message)) }
    }

    fn render(&self, level: Level<'_>, colour: Colour) -> String {
        let help = escaped_lines(&self.help);
        let mut group = level.primary_title(self.title()).element(element(&self.place, AnnotationKind::Primary, None));
        if let Some((place, label)) = &self.related {
            group = group.element(element(place, AnnotationKind::Context, Some(label)));
            if place.excerpt.is_none() {
                group = group.element(Level::NOTE.message(label.as_str()));
            }
        }
        group = group.element(Level::HELP.message(help.as_str()));
        let renderer = match colour {
            Colour::Always => Renderer::styled(),
            Colour::Never => Renderer::plain(),
        };
        renderer.decor_style(DecorStyle::Ascii).render(&[group])
    }
}

fn element<'a>(place: &'a Place, kind: AnnotationKind, label: Option<&'a String>) -> Element<'a> {
    let path = shown(&place.file);
    match &place.excerpt {
        Some(excerpt) => {
            let annotation = kind.span(excerpt.marked.clone()).label(label.map(String::as_str));
            Snippet::source(excerpt.line.as_str()).line_start(place.line).path(path).annotation(annotation).into()
        }
        None => SnippetOrigin::path(path).line(place.line).char_column(place.column).into(),
    }
}

/// A statement that is being made; see [`Problems`].
pub(crate) struct Finding {
    pub(crate) kind: InvalidKind,
    pub(crate) at: Origin,
    pub(crate) key: String,
    pub(crate) message: String,
    pub(crate) help: String,
    pub(crate) related: Option<(Origin, String)>,
}

/// Collects everything that is found, so that all of it can be said at once.
pub(crate) struct Problems<'a> {
    pub(crate) files: Files<'a>,
    invalid: Vec<(Origin, Invalid)>,
    warnings: Vec<(Origin, Warning)>,
}

impl<'a> Problems<'a> {
    pub(crate) fn new(files: Files<'a>) -> Self {
        Self { files, invalid: Vec::new(), warnings: Vec::new() }
    }

    pub(crate) fn refuse(
        &mut self,
        kind: InvalidKind,
        at: Origin,
        key: impl Into<String>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.refuse_finding(Finding {
            kind,
            at,
            key: key.into(),
            message: message.into(),
            help: help.into(),
            related: None,
        });
    }

    pub(crate) fn refuse_finding(&mut self, finding: Finding) {
        let at = finding.at;
        let notice = self.notice(finding);
        self.invalid.push((at, Invalid(notice)));
    }

    pub(crate) fn warn(
        &mut self,
        at: Origin,
        key: impl Into<String>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let finding = Finding {
            kind: InvalidKind::Doubtful,
            at,
            key: key.into(),
            message: message.into(),
            help: help.into(),
            related: None,
        };
        let notice = self.notice(finding);
        self.warnings.push((at, Warning(notice)));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.invalid.is_empty()
    }

    /// Everything found, in the order of the files and of the text.
    pub(crate) fn into_lists(mut self) -> (Vec<Invalid>, Vec<Warning>) {
        self.invalid.sort_by_key(|(at, _)| *at);
        self.warnings.sort_by_key(|(at, _)| *at);
        let mut invalid: Vec<Invalid> = self.invalid.into_iter().map(|(_, invalid)| invalid).collect();
        invalid.dedup();
        (invalid, self.warnings.into_iter().map(|(_, warning)| warning).collect())
    }

    fn notice(&self, finding: Finding) -> Notice {
        Notice {
            kind: finding.kind,
            place: self.files.place(finding.at),
            key: finding.key,
            message: finding.message,
            help: finding.help,
            related: finding.related.map(|(at, label)| (self.files.place(at), label)),
        }
    }
}
