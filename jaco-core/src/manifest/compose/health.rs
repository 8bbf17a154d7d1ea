//! `healthcheck`.

use crate::manifest::read::{View, boolean, count, duration, list, string};
use crate::manifest::spec::Healthcheck;
use crate::manifest::yaml::Value;

/// A health check; `disable: true` and a test of `NONE` are the same.
pub(super) fn healthcheck(view: View<'_>) -> Option<Healthcheck> {
    let mut fields = view.fields()?;
    let disable = fields.take_or_default("disable", boolean);
    let words = fields.take_or_default("test", test);
    let check = Healthcheck::Test {
        interval: fields.take("interval", duration),
        timeout: fields.take("timeout", duration),
        start_period: fields.take("start_period", duration),
        retries: fields.take("retries", count),
        test: words.clone(),
    };
    fields.ignore("start_interval", "engines before API 1.44 do not have it");
    fields.close();
    let none = words.first().is_some_and(|word| word == "NONE");
    Some(if disable || none {
        Healthcheck::Disabled
    } else {
        check
    })
}

fn test(view: View<'_>) -> Option<Vec<String>> {
    if let Value::Scalar(_) = view.node.value {
        let text = string(view)?;
        return Some(match &*text {
            "NONE" => vec![text],
            _ => vec!["CMD-SHELL".to_owned(), text],
        });
    }
    let words = list(string)(view)?;
    match words.first().map(String::as_str) {
        Some("NONE" | "CMD" | "CMD-SHELL") => Some(words),
        _ => view.invalid(format!(
            "{} must begin with CMD, CMD-SHELL or NONE",
            view.name()
        )),
    }
}
