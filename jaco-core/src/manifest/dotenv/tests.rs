//! The grammar by example.

use super::*;

fn check(text: &str, expect: &[(&str, &str)]) {
    let outer = Variables::from([("OUTER".to_owned(), "o".to_owned())]);
    let got = parse(text, &outer).unwrap_or_else(|error| panic!("{text:?}: {error}"));
    let got: Vec<_> = got.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(got, expect, "{text:?}");
}

fn check_error(text: &str, expect: &str) {
    let got = parse(text, &Variables::new()).unwrap_err().to_string();
    assert_eq!(got, expect, "{text:?}");
}

#[test]
fn plain_lines_comments_and_export() {
    check("A=1\nB = two words \n", &[("A", "1"), ("B", "two words")]);
    check(
        "# note\n\n  export A=1\nexport\tB=2",
        &[("A", "1"), ("B", "2")],
    );
    check(
        "A=1 # note\nB=1#kept\nC=#kept",
        &[("A", "1"), ("B", "1#kept"), ("C", "#kept")],
    );
    check("A: yaml\r\nB=crlf\r\n", &[("A", "yaml"), ("B", "crlf")]);
    check("\u{feff}A=1", &[("A", "1")]);
    check("export=1", &[("export", "1")]);
}

#[test]
fn a_key_without_a_value_is_empty() {
    check(
        "A\nB=\nC= # note\nD # note",
        &[("A", ""), ("B", ""), ("C", ""), ("D", "")],
    );
}

#[test]
fn single_quotes_are_literal() {
    check("A='$X ${Y} \\n # no'", &[("A", "$X ${Y} \\n # no")]);
    check("A='Let\\'s go' # note", &[("A", "Let's go")]);
    check("A='one\ntwo'\nB=3", &[("A", "one\ntwo"), ("B", "3")]);
}

#[test]
fn double_quotes_have_escapes_and_references() {
    check(r#"A="a\tb\n\\\"q\"""#, &[("A", "a\tb\n\\\"q\"")]);
    check(
        "X=1\nA=\"<$X ${X}>\n# in\"",
        &[("X", "1"), ("A", "<1 1>\n# in")],
    );
    check(r#"A="\$X""#, &[("A", "$X")]);
    check(r#"A="{\"k\": \"v\"}""#, &[("A", r#"{"k": "v"}"#)]);
}

#[test]
fn references_reach_back_and_outward() {
    check(
        "A=1\nB=${A}${OUTER}\nC=${D:-d}",
        &[("A", "1"), ("B", "1o"), ("C", "d")],
    );
    check("A=1\nA=${A}2", &[("A", "12")]);
    check("A=a$$b", &[("A", "a$b")]);
}

#[test]
fn mistakes_are_named_by_line_and_without_values() {
    check_error("A=1\n=2", "line 2: a line starts without a variable name");
    check_error(
        "A B=2",
        "line 1: unexpected character ' ' in a variable name",
    );
    check_error(
        "A=1\nB=\"x\n\n",
        "line 2: unterminated quoted value, opened by \"",
    );
    check_error("A='x'y", "line 1: unexpected text after the closing quote");
    check_error(
        "A=${X:?need X}",
        "line 1: required variable X is missing a value: need X",
    );
    check_error("\nA=hunter2$", "line 2: invalid template in the value");
}

#[test]
fn the_raw_format_takes_values_as_they_stand() {
    let got = parse_raw("A='q' # x\n# note\nB=$A\n").unwrap();
    assert_eq!(got["A"], "'q' # x");
    assert_eq!(got["B"], "$A");
}
