//! Writing results to standard output, and remarks to standard error. Unlike with `println!` and `eprintln!`, a reader
//! that went away is no panic.

use std::fmt::Display;
use std::io::{self, Write};

use super::CliError;

/// Writes one line and hands it over at once: somebody may be waiting for it behind a pipe.
pub(super) fn line(text: impl Display) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(CliError::Output)
}

/// Writes one line beside the results. If nobody reads it, nobody needs it.
pub(super) fn remark(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Writes what is allowed in a configuration but probably not meant, one line each.
pub(super) fn warnings(warnings: &[String]) {
    warnings.iter().for_each(|warning| remark(format_args!("warning: {warning}")));
}

/// Text for one line of a terminal: control characters, with which a sender could move the cursor or break the line,
/// are written out.
pub(super) fn on_one_line(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut line, c| {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
        line
    })
}

/// Columns as wide as their widest cell, two spaces between them, none at the end of a line.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| -> String {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_lines_up() {
        let rows = [vec!["CHANNEL".to_owned(), "COUNT".to_owned()], vec!["a".to_owned(), "12".to_owned()]];
        assert_eq!(table(&rows), "CHANNEL  COUNT\na        12");
    }

    #[test]
    fn a_sender_cannot_break_a_line() {
        assert_eq!(on_one_line("a\nb\u{1b}[2Jé"), "a\\nb\\u{1b}[2Jé");
    }
}
