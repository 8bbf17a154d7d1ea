//! Printing: data on standard output, everything else on standard error.

use std::io::{IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};
use jaco_core::error::Error;
use serde::Serialize;

use super::args::{Format, Global};
use super::exit::Failure;

/// Prints in the format that was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Printer {
    format: Format,
    quiet: bool,
    color: bool,
}

impl Printer {
    pub(super) fn new(global: &Global) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let color = !global.no_color && !plain && std::io::stderr().is_terminal();
        Self {
            format: global.output,
            quiet: global.quiet,
            color,
        }
    }

    pub(super) fn is_table(self) -> bool {
        self.format == Format::Table
    }

    pub(super) fn color(self) -> bool {
        self.color
    }

    /// One document: JSON or YAML of the value, or its table.
    pub(super) fn document<T: Serialize>(
        self,
        value: &T,
        table: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Table => out(&table(value)),
            Format::Json => {
                out(&(serde_json::to_string_pretty(value).map_err(Error::internal)? + "\n"))
            }
            Format::Yaml => out(&serde_saphyr::to_string(value).map_err(Error::internal)?),
        }
    }

    /// One of a stream of documents: a line of JSON, a YAML document, or a line of text.
    pub(super) fn item<T: Serialize>(
        self,
        value: &T,
        line: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Table => out(&line(value)),
            Format::Json => out(&(serde_json::to_string(value).map_err(Error::internal)? + "\n")),
            Format::Yaml => {
                let yaml = serde_saphyr::to_string(value).map_err(Error::internal)?;
                out(&format!("---\n{yaml}"))
            }
        }
    }

    /// Something for people, not data.
    pub(super) fn note(self, text: &str) {
        if !self.quiet {
            eprintln!("{}", plain(text));
        }
    }

    /// Tells why a command failed.
    pub(super) fn failure(self, failure: &Failure) {
        match failure {
            Failure::Error(error) => self.error(error),
            Failure::Unreachable(reason) => {
                eprintln!("Error: {reason}");
                eprintln!("hint: is jacod running there? `systemctl status jaco`");
            }
            Failure::NotConverged(reason) => {
                eprintln!("Error: not converged: {}", plain(reason));
            }
            Failure::Manifests(_) | Failure::Silent(_) => {}
        }
    }

    fn error(self, error: &Error) {
        if self.format == Format::Json || self.format == Format::Yaml {
            let _ = self.document(&error.document(), |_| String::new());
        }
        eprintln!("Error: {}", plain(&error.to_string()));
        for (key, value) in &error.details {
            eprintln!("  {key}: {}", plain(value));
        }
        eprintln!("hint: {}", error.code.hint());
    }
}

/// Writes data. A reader that went away ends the command quietly.
pub(super) fn out(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    written.map_err(|error| match error.kind() {
        std::io::ErrorKind::BrokenPipe => Failure::Silent(0),
        _ => Failure::Error(Error::internal(error)),
    })
}

/// A table without lines that fits the terminal. Empty cells show as a dash.
pub(super) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header);
    for row in rows {
        table.add_row(row.into_iter().map(|cell| match cell.is_empty() {
            true => "-".to_owned(),
            false => plain(&cell),
        }));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines: Vec<String> = table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    lines.join("\n") + "\n"
}

/// Text without what moves a terminal's cursor or changes its state: it may have come from a
/// container, an image or a registry.
pub(super) fn plain(text: &str) -> String {
    let harmless = |c: &char| !c.is_control() || matches!(c, '\n' | '\t');
    text.chars().filter(harmless).collect()
}

/// A state in upper case, as tables show it.
pub(super) fn upper<T: Serialize>(state: &T) -> String {
    let value = serde_json::to_value(state).unwrap_or_default();
    value.as_str().unwrap_or_default().to_uppercase()
}
