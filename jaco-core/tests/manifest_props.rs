//! Properties: no input panics, both sides agree, and only meaning moves a spec hash.
#![allow(clippy::unwrap_used)] // a test that fails says where

mod support;

use std::collections::BTreeMap;

use jaco_core::manifest::dotenv::{self, Variables};
use jaco_core::manifest::interpolate::interpolate;
use jaco_core::manifest::{Bundle, parse};
use proptest::prelude::*;
use proptest::sample::select;
use support::{JACO, Project};

/// Text made of what YAML and compose find special, which goes deeper than random text.
fn yaml_like() -> impl Strategy<Value = String> {
    let pieces = select(vec![
        "services:",
        "web:",
        "image: w",
        "\n",
        "\n  ",
        "\n    ",
        "- ",
        "? ",
        ": ",
        "{",
        "}",
        "[",
        "]",
        ",",
        "&a ",
        "*a",
        "<<: ",
        "!reset ",
        "!override ",
        "|\n",
        ">\n",
        "'",
        "\"",
        "#",
        "$A",
        "${A:-",
        "${A:?x}",
        "}",
        "ports: ",
        "80:80",
        "1-9:1-9",
        "networks: ",
        "deploy: ",
        "~",
        "environment: ",
        "A=b",
        "volumes: ",
        "./x:/x:ro",
        "secrets: ",
        "file: s",
        "depends_on: ",
        "extends: ",
        "include: ",
        "017",
        "1e9",
        "é",
        "\u{1F680}",
        "\t",
        "\\",
        "---",
        "...",
        "%",
        "env_file: ",
        "x.yaml",
        "routes: ",
        "domain: a.b",
        "deployment: shop",
        "profiles: ",
    ]);
    prop::collection::vec(pieces, 0..60).prop_map(|pieces| pieces.concat())
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        prop::collection::vec(any::<u8>(), 0..200)
            .prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
        yaml_like(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn no_document_panics(jaco in any_text(), compose in any_text(), other in yaml_like()) {
        let project = Project::default().file("x.yaml", &other).file("s", &other);
        let resolved = project.resolve(&jaco, &compose);
        prop_assert_eq!(resolved.report.is_empty(), resolved.bundle.is_some());
        project.resolve(JACO, &compose);
        let services = format!("services:\n  web:\n    image: w\n    {compose}");
        project.resolve(JACO, &services);
        let _ = parse(&Bundle { jaco, compose, ..Bundle::default() });
    }

    #[test]
    fn no_env_file_panics(text in any_text()) {
        let _ = dotenv::parse(&text, &Variables::new());
        let _ = dotenv::parse_raw(&text);
    }

    #[test]
    fn no_template_panics(text in prop_oneof![any::<String>(), "[${}:?+A-C é-]{0,40}"]) {
        let _ = interpolate(&text, |name| (name == "A").then_some("a$b"));
    }

    #[test]
    fn an_escaped_text_interpolates_to_itself(text in any::<String>()) {
        let filled = interpolate(&text.replace('$', "$$"), |_| None).unwrap();
        prop_assert_eq!(filled.text, text);
    }

    #[test]
    fn a_variable_becomes_its_value(before in "[^$]*", value in any::<String>(), after in "[^$]*") {
        for form in ["${V}", "${V:-d}", "${V-d}", "${V?e}", "${N:-${V}}", "${N-${V}}"] {
            let text = format!("{before}{form}{after}");
            let lookup = |name: &str| (name == "V").then_some(&*value);
            let expect = match (form, value.is_empty()) {
                ("${V:-d}", true) => format!("{before}d{after}"),
                _ => format!("{before}{value}{after}"),
            };
            prop_assert_eq!(interpolate(&text, lookup).unwrap().text, expect);
        }
    }

    #[test]
    fn a_double_quoted_env_value_reads_back(value in any::<String>()) {
        let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "\\$");
        let variables = dotenv::parse(&format!("A=\"{escaped}\"\nB=1"), &Variables::new()).unwrap();
        prop_assert_eq!(&variables["A"], &value);
        prop_assert_eq!(&variables["B"], "1");
    }
}

/// A small compose model: what is meant, without a spelling.
#[derive(Clone, Debug)]
struct Model {
    services: BTreeMap<String, ServiceModel>,
}

#[derive(Clone, Debug)]
struct ServiceModel {
    image: String,
    environment: BTreeMap<String, String>,
    command: Vec<String>,
    tty: bool,
    labels: BTreeMap<String, String>,
    replicas: u8,
}

fn model() -> impl Strategy<Value = Model> {
    let pairs = || prop::collection::btree_map("[A-Z]{1,3}", any::<String>(), 0..4);
    let service = (
        "[a-z]{1,8}",
        pairs(),
        prop::collection::vec(any::<String>(), 1..3),
        any::<bool>(),
        pairs(),
        0..9_u8,
    );
    let service =
        service.prop_map(
            |(image, environment, command, tty, labels, replicas)| ServiceModel {
                image,
                environment,
                command,
                tty,
                labels,
                replicas,
            },
        );
    prop::collection::btree_map("[a-z]{1,6}", service, 1..4).prop_map(|services| Model { services })
}

/// Spells a model, following a tape of choices.
struct Speller<'a> {
    choices: std::iter::Cycle<std::slice::Iter<'a, bool>>,
    out: String,
}

impl Speller<'_> {
    fn choose(&mut self) -> bool {
        *self.choices.next().unwrap_or(&false)
    }

    fn comment(&mut self) {
        if self.choose() {
            self.out.push_str("\n# note: {[");
        }
    }

    fn model(mut self, model: &Model) -> String {
        self.comment();
        self.out.push_str("\nservices:");
        let mut services: Vec<_> = model.services.iter().collect();
        if self.choose() {
            services.reverse();
        }
        for (name, service) in services {
            self.comment();
            self.out.push_str(&format!("\n  {name}:"));
            self.service(service);
        }
        self.out
    }

    fn service(&mut self, service: &ServiceModel) {
        let mut keys = vec![
            format!("image: {}", self.word(&service.image)),
            format!("environment: {}", self.pairs(&service.environment)),
            format!("command: {}", self.list(&service.command)),
            format!("tty: {}", self.boolean(service.tty)),
            format!("labels: {}", self.pairs(&service.labels)),
            format!(
                "deploy: {{replicas: {}}}",
                self.word(&service.replicas.to_string())
            ),
        ];
        let turn = (0..6).filter(|_| self.choose()).count() % keys.len();
        keys.rotate_left(turn);
        for key in keys {
            self.comment();
            self.out.push_str(&format!("\n    {key}"));
        }
    }

    fn boolean(&mut self, on: bool) -> &'static str {
        match (on, self.choose()) {
            (true, true) => "yes",
            (true, false) => "true",
            (false, true) => "off",
            (false, false) => "'false'",
        }
    }

    fn word(&mut self, word: &str) -> String {
        let plain = word
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        let plain = plain && !matches!(word, "" | "null");
        if plain && self.choose() {
            word.to_owned()
        } else {
            self.quote(word)
        }
    }

    /// In single quotes where the text allows it, else in double quotes, all of it escaped.
    fn quote(&mut self, text: &str) -> String {
        let text = text.replace('$', "$$");
        let simple = text.chars().all(|c| (' '..='~').contains(&c));
        if simple && self.choose() {
            return format!("'{}'", text.replace('\'', "''"));
        }
        let escape = |c: char| match c.is_ascii_alphanumeric() {
            true => c.to_string(),
            false => format!("\\U{:08x}", u32::from(c)),
        };
        format!("\"{}\"", text.chars().map(escape).collect::<String>())
    }

    fn list(&mut self, items: &[String]) -> String {
        let items: Vec<String> = items.iter().map(|item| self.quote(item)).collect();
        format!("[{}]", items.join(", "))
    }

    fn pairs(&mut self, pairs: &BTreeMap<String, String>) -> String {
        let mut entries: Vec<String> = Vec::new();
        let as_list = self.choose();
        for (key, value) in pairs {
            entries.push(match as_list {
                true => self.quote(&format!("{key}={value}")),
                false => format!("{key}: {}", self.quote(value)),
            });
        }
        if self.choose() {
            entries.reverse();
        }
        let entries = entries.join(", ");
        if as_list {
            format!("[{entries}]")
        } else {
            format!("{{{entries}}}")
        }
    }
}

fn spell(model: &Model, choices: &[bool]) -> String {
    let speller = Speller {
        choices: choices.iter().cycle(),
        out: String::new(),
    };
    speller.model(model)
}

fn choices() -> impl Strategy<Value = Vec<bool>> {
    prop::collection::vec(any::<bool>(), 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn spelling_never_changes_a_hash(model in model(), one in choices(), two in choices()) {
        // `spec` also holds the daemon's parse equal to the client's spec.
        let one = Project::default().spec(JACO, &spell(&model, &one));
        let two = Project::default().spec(JACO, &spell(&model, &two));
        prop_assert_eq!(&one, &two);
        for (name, service) in &model.services {
            let container = &one.services[name.as_str()].container;
            prop_assert_eq!(&container.environment, &service.environment);
            prop_assert_eq!(container.command.as_ref(), Some(&service.command));
        }
    }

    #[test]
    fn a_changed_value_changes_exactly_its_service(
        model in model(), pick in any::<prop::sample::Index>(), value in any::<String>(),
        tape in choices(),
    ) {
        let before = Project::default().spec(JACO, &spell(&model, &tape));
        let mut changed = model.clone();
        let name = pick.get(&model.services.keys().collect::<Vec<_>>()).to_string();
        let service = changed.services.get_mut(&name).unwrap();
        let old = service.environment.insert("CHANGED".to_owned(), value.clone());
        prop_assume!(old != Some(value));
        let after = Project::default().spec(JACO, &spell(&changed, &tape));
        for (service, spec) in &after.services {
            let same = spec.spec_hash == before.services[service].spec_hash;
            prop_assert_eq!(same, service.as_str() != name);
        }
    }

    #[test]
    fn replicas_never_change_a_hash(model in model(), replicas in 0..9_u8, tape in choices()) {
        let before = Project::default().spec(JACO, &spell(&model, &tape));
        let mut changed = model.clone();
        changed.services.values_mut().for_each(|service| service.replicas = replicas);
        let after = Project::default().spec(JACO, &spell(&changed, &tape));
        for (name, spec) in &after.services {
            prop_assert_eq!(&spec.spec_hash, &before.services[name].spec_hash);
        }
    }
}
