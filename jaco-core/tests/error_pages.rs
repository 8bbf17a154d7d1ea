//! Every error code has its page in `docs/errors`, and every page its code.
#![allow(clippy::disallowed_methods)] // a test may read files

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use jaco_core::error::ErrorCode;

fn pages() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/errors")
}

#[test]
fn pages_and_codes_are_the_same_set() {
    let files = fs::read_dir(pages()).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let pages: BTreeSet<String> = names.collect();
    let codes: BTreeSet<String> = ErrorCode::ALL
        .iter()
        .map(|code| format!("{}.md", code.as_str()))
        .collect();
    assert_eq!(pages, codes);
}

#[test]
fn a_page_shows_its_code_and_the_hint_that_the_command_line_prints() {
    for code in ErrorCode::ALL {
        let page = fs::read_to_string(pages().join(format!("{code}.md"))).unwrap();
        let lines: Vec<&str> = page.lines().collect();
        assert_eq!(lines[0], format!("# `{code}`"));
        assert!(
            lines.contains(&&*format!("hint: {}", code.hint())),
            "{code}: hint"
        );
        assert!(lines.contains(&"To clear it:"), "{code}: how to clear it");
        assert!(
            (10..=25).contains(&lines.len()),
            "{code}: {} lines",
            lines.len()
        );
    }
}
