//! YAML as far as manifests go: anchors, merge keys, bounds, syntax errors.
#![allow(clippy::unwrap_used)] // a test that fails says where

mod support;

use support::{JACO, Project, check_compose, service};

#[test]
fn anchors_aliases_and_merge_keys_work() {
    let web = Project::default().web(
        JACO,
        "x-base: &base\n  image: base\n  environment: &env {A: '1', B: '2'}\n  tty: yes\n\
         services:\n  web:\n    <<: *base\n    image: own\n    environment:\n      \
         <<: [*env, {A: '9', C: '3'}]\n      B: own\n",
    );
    assert_eq!(web.container.image, "own");
    assert!(web.container.tty);
    let environment: Vec<_> = web.container.environment.into_iter().collect();
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(
        environment,
        [pair("A", "1"), pair("B", "own"), pair("C", "3")]
    );
}

#[test]
fn scalars_keep_their_spelling() {
    let web = Project::default().web(
        JACO,
        &service("environment: {A: 017, B: 1.10, C: yes, D: 0x1F, E: , F: ~, G: '~', H: true}"),
    );
    let values: Vec<&str> = web
        .container
        .environment
        .values()
        .map(String::as_str)
        .collect();
    assert_eq!(values, ["017", "1.10", "yes", "0x1F", "", "", "~", "true"]);
}

#[test]
fn syntax_errors_have_a_place() {
    let got = Project::default().refused("deployment: [\n", "services:\n  web: {image: 'w\n");
    assert_eq!(
        got,
        "jaco.yaml:1:13 validation_failed : not valid YAML: unclosed bracket '['\n\
         compose.yaml:2:16 validation_failed : not valid YAML: unclosed quote"
    );
    check_compose(
        "services:\n  web: {image: *nope, command: *neither}\n",
        &[
            "compose.yaml:2:16 validation_failed services.web.image: alias *nope has no anchor \
            &nope before it",
            "compose.yaml:2:32 validation_failed services.web.command: alias *neither has no \
            anchor &neither before it",
        ],
    );
}

#[test]
fn documents_must_be_one_and_keys_unique() {
    check_compose(
        "services:\n  web: {image: a, image: b}\n  web: {image: c}\n",
        &[
            "compose.yaml:2:19 validation_failed services.web.image: \
             key \"image\" appears twice in one mapping",
            "compose.yaml:3:3 validation_failed services.web: key \"web\" appears twice in one \
            mapping",
        ],
    );
    check_compose(
        "services: {web: {image: w}}\n---\nservices: {}\n",
        &["compose.yaml:2:1 validation_failed : \
           the file holds more than one YAML document; keep one"],
    );
    check_compose(
        "services: {web: {image: w, command: !ruby/object x}}\n",
        &["compose.yaml:1:50 validation_failed services.web.command: unknown tag !ruby/object"],
    );
    check_compose(
        "services: {web: {image: w, ? [a] : b}}\n",
        &[
            "compose.yaml:1:30 validation_failed : a mapping key must be a scalar",
            "compose.yaml:1:30 validation_failed services.web.: unknown key \"\" at services.web.",
        ],
    );
}

#[test]
fn bombs_and_pits_are_refused() {
    let mut bomb = String::from("x0: &x0 [a, a, a, a, a, a, a, a, a, a]\n");
    for level in 1..9 {
        let prior = format!("*x{}", level - 1);
        let list = vec![prior; 10].join(", ");
        bomb.push_str(&format!("x{level}: &x{level} [{list}]\n"));
    }
    let got = Project::default().refused(JACO, &bomb);
    assert!(
        got.contains("the aliases of the document expand without reasonable bound"),
        "{got}"
    );

    let got = Project::default().refused(JACO, &"[".repeat(100_000));
    assert!(got.contains("validation_failed"), "{got}");

    let got = Project::default().refused(JACO, "services: &a\n  web: *a\n");
    assert!(
        got.contains("an alias stands inside its own anchor"),
        "{got}"
    );

    let mut chain = String::from("x-0: &x0 {image: w}\n");
    for level in 1..200 {
        chain.push_str(&format!("x-{level}: &x{level} {{a: *x{}}}\n", level - 1));
    }
    let got = Project::default().refused(JACO, &chain);
    assert!(
        got.contains("the document nests deeper than 64 levels"),
        "{got}"
    );
}

#[test]
fn a_mistake_in_an_anchor_is_told_once() {
    check_compose(
        "x-base: &base\n  image: w\n  tty: maybe\n  foo: 1\nservices:\n  a: *base\n  b: *base\n",
        &[
            "compose.yaml:3:8 validation_failed services.a.tty: services.a.tty must be a boolean",
            "compose.yaml:4:3 validation_failed services.a.foo: \
             unknown key \"foo\" at services.a.foo",
        ],
    );
}
