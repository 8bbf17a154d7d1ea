//! The written list: differences that are meant, and keys that cannot be compared.
//!
//! Both are tables of `docs/reference/parity.md`, so that the page is the list.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::Difference;

/// The page, from this package's folder.
const PAGE: &str = "../docs/reference/parity.md";

/// One row of the differences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// A field, in which one `*` stands for anything.
    pub field: String,
    /// `topic/service`, or `all`.
    pub place: String,
}

/// The two tables.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    /// Differences that are meant.
    pub differences: Vec<Row>,
    /// Honoured keys that no file can use.
    pub untested: Vec<String>,
}

impl Listed {
    /// Reads the page.
    ///
    /// # Errors
    /// When it cannot be read; a row without a reason.
    pub fn read() -> Result<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
        let page = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        Self::parse(&page)
    }

    fn parse(page: &str) -> Result<Self> {
        let mut listed = Self::default();
        for line in page.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let reason = cells.last().copied().unwrap_or_default();
            ensure!(!reason.is_empty(), "a row gives no reason: {line}");
            let name = cells[0].trim_matches('`').to_owned();
            match cells[..] {
                [_, place, _] => listed.differences.push(Row {
                    field: name,
                    place: place.trim_matches('`').to_owned(),
                }),
                [_, _] => listed.untested.push(name),
                _ => anyhow::bail!("a row has neither two nor three cells: {line}"),
            }
        }
        Ok(listed)
    }
}

impl Row {
    /// True for a difference that this row means.
    pub fn covers(&self, difference: &Difference) -> bool {
        (self.place == "all" || self.place == difference.place)
            && match self.field.split_once('*') {
                None => self.field == difference.field,
                Some((before, after)) => {
                    let field = &difference.field;
                    field.len() >= before.len() + after.len()
                        && field.starts_with(before)
                        && field.ends_with(after)
                }
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_a_list() {
        let listed = Listed::read().unwrap();
        assert!(!listed.differences.is_empty());
        assert!(!listed.untested.is_empty());
    }

    #[test]
    fn a_row_without_a_reason_is_refused() {
        assert!(Listed::parse("| `a` | all | because |\n| `k` | unknown there |").is_ok());
        assert!(Listed::parse("| `a` | all |  |").is_err());
    }

    #[test]
    fn a_star_stands_for_anything() {
        let row = |field: &str, place: &str| Row {
            field: field.to_owned(),
            place: place.to_owned(),
        };
        let difference = Difference {
            place: "a/web".to_owned(),
            field: "Config.Labels.x".to_owned(),
            theirs: None,
            ours: None,
        };
        assert!(row("Config.Labels.*", "all").covers(&difference));
        assert!(row("Config.*.x", "a/web").covers(&difference));
        assert!(!row("Config.*.y", "a/web").covers(&difference));
        assert!(!row("Config.Labels.*", "a/db").covers(&difference));
    }
}
