//! Tables for people: as wide as they are in a file or a pipe; on a terminal that is narrower the last column goes on in the next line.

use std::io::{self, IsTerminal as _};

use comfy_table::{ColumnConstraint, ContentArrangement, Table, presets};

use crate::config::escaped;

/// What is in a table: its header, and rows of as many cells.
pub(super) struct Rows<const N: usize> {
    header: [&'static str; N],
    rows: Vec<[String; N]>,
    /// The column that goes on in the next line.
    wrapped: usize,
}

/// In less a wrapped column is harder to read than lines that the terminal breaks.
const WRAPPED_MIN: usize = 20;

impl<const N: usize> Rows<N> {
    pub(super) fn new(header: [&'static str; N]) -> Self {
        Self { header, rows: Vec::new(), wrapped: N.saturating_sub(1) }
    }

    /// Another column than the last has the long texts.
    pub(super) fn with_wrapped(self, wrapped: usize) -> Self {
        Self { wrapped, ..self }
    }

    /// A name with a line break would make a row of its own.
    pub(super) fn add(&mut self, row: [impl AsRef<str>; N]) {
        self.rows.push(row.map(|cell| escaped(cell.as_ref())));
    }

    /// For where standard output goes.
    pub(super) fn render(self) -> String {
        self.render_in(width())
    }

    fn render_in(self, width: Option<u16>) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        let others = self.width_of_others();
        table.set_header(self.header);
        table.add_rows(self.rows);
        if let Some(width) = width
            && usize::from(width) >= others + WRAPPED_MIN
        {
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
            // names and paths are copied: they stay whole
            for column in (0..N).filter(|column| *column != self.wrapped) {
                if let Some(column) = table.column_mut(column) {
                    column.set_constraint(ColumnConstraint::ContentWidth);
                }
            }
        }
        table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
    }
}

impl<const N: usize> Rows<N> {
    /// With a blank on either side of each.
    fn width_of_others(&self) -> usize {
        let columns = (0..N).filter(|column| *column != self.wrapped);
        let cells = |column: usize| self.rows.iter().map(move |row| row[column].chars().count());
        columns.map(|column| 2 + cells(column).chain([self.header[column].len()]).max().unwrap_or_default()).sum()
    }
}

/// Columns of the terminal, if standard output is one that says so.
fn width() -> Option<u16> {
    let out = io::stdout();
    let size = out.is_terminal().then(|| rustix::termios::tcgetwinsize(&out).ok())??;
    Some(size.ws_col).filter(|columns| *columns > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Rows<3> {
        let mut rows = Rows::new(["SHARE", "MOUNT POINT", "CONSUMERS"]);
        rows.add(["films", "/mnt/films", "one of them, two of them, three of them"]);
        rows.add(["x\ny", "/mnt/\u{1b}[2J", ""]);
        rows
    }

    #[test]
    fn only_a_terminal_has_a_width_and_only_the_last_column_goes_on_in_the_next_line() {
        let wide = rows().render_in(None);
        assert!(wide.contains("three of them\n") && wide.lines().count() == 3, "{wide}");
        let narrow = rows().render_in(Some(50));
        assert!(narrow.lines().all(|line| line.chars().count() <= 50) && narrow.lines().count() > 3, "{narrow}");
        assert!(narrow.contains("/mnt/films"), "{narrow}");
        assert_eq!(rows().render_in(Some(30)), wide, "too narrow for that");
    }

    #[test]
    fn a_name_writes_no_row_of_its_own() {
        let text = rows().render_in(None);
        assert!(text.contains(r"x\ny") && text.contains(r"/mnt/\u001b[2J"), "{text}");
    }
}
