//! What an engine says about a container, laid flat: one line of text a field.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Values by field, as `HostConfig.Memory` → `67108864`. What is empty is not there.
pub type Facts = BTreeMap<String, String>;

/// Lists whose order has a meaning; all others are compared as sets.
const ORDERED: [&str; 4] = [
    "Config.Cmd",
    "Config.Entrypoint",
    "Config.Healthcheck.Test",
    "HostConfig.DnsSearch",
];

/// Two ways to write the same mounts; what they come to is in `Mounts` and in the container.
const SPELLINGS: [&str; 3] = ["HostConfig.Binds", "HostConfig.Mounts", "HostConfig.Tmpfs"];

/// The facts of one `docker inspect` object.
pub fn facts(inspected: &Value) -> Facts {
    let mut facts = Facts::new();
    // The engine names a container after its id where nobody does.
    let short = inspected["Id"].as_str().and_then(|id| id.get(..12));
    for part in ["Config", "HostConfig"] {
        lay(part, &inspected[part], &mut facts);
    }
    if inspected["Config"]["Hostname"].as_str() == short {
        facts.remove("Config.Hostname");
    }
    for mount in inspected["Mounts"].as_array().into_iter().flatten() {
        mounted(mount, &mut facts);
    }
    for (name, network) in networks(inspected) {
        let at = format!("Networks.{name}");
        facts.insert(at.clone(), "attached".to_owned());
        let aliases = network["Aliases"].as_array().into_iter().flatten();
        let given = aliases.filter(|alias| alias.as_str() != short).cloned();
        let given = Value::Array(given.collect());
        lay(&format!("{at}.Aliases"), &given, &mut facts);
    }
    facts
}

fn networks(inspected: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let networks = inspected["NetworkSettings"]["Networks"].as_object();
    let networks = networks.into_iter().flat_map(Map::iter);
    // Both sides put the project before the last underscore.
    networks.map(|(name, network)| {
        let short = name.rsplit_once('_').map_or(&**name, |(_, short)| short);
        (short, network)
    })
}

fn lay(at: &str, value: &Value, facts: &mut Facts) {
    if SPELLINGS.contains(&at) {
        return;
    }
    match value {
        Value::Null => {}
        Value::Object(fields) => {
            for (key, value) in fields {
                let at = format!("{at}.{key}");
                // `{"80/tcp": {}}`: the key is all there is to say.
                if value.as_object().is_some_and(Map::is_empty) && is_inner(&at) {
                    facts.insert(at, "{}".to_owned());
                } else {
                    lay(&at, value, facts);
                }
            }
        }
        Value::Array(items) if at == "Config.Env" => {
            for item in items.iter().filter_map(Value::as_str) {
                let (name, value) = item.split_once('=').unwrap_or((item, ""));
                facts.insert(format!("{at}.{name}"), format!("{value:?}"));
            }
        }
        Value::Array(items) if items.is_empty() => {}
        Value::Array(items) => {
            let mut items: Vec<String> = items.iter().map(Value::to_string).collect();
            if !ORDERED.contains(&at) {
                items.sort();
            }
            facts.insert(at.to_owned(), items.join(" "));
        }
        // A label or variable may be empty on purpose; elsewhere an empty text is none.
        Value::String(text) if text.is_empty() && !at.starts_with("Config.Labels.") => {}
        other => {
            facts.insert(at.to_owned(), other.to_string());
        }
    }
}

/// True below the fields of `Config` and `HostConfig` themselves, where empty means absent.
fn is_inner(at: &str) -> bool {
    at.matches('.').count() > 1
}

/// A mount by its place in the container. Paths of volumes are the engine's own affair.
fn mounted(mount: &Value, facts: &mut Facts) {
    let target = mount["Destination"].as_str().unwrap_or_default();
    let bind = mount["Type"] == "bind";
    let random = mount["Name"].as_str().is_some_and(is_random);
    for key in ["Type", "RW", "Propagation", "Driver"] {
        lay(&format!("Mounts.{target}.{key}"), &mount[key], facts);
    }
    if bind {
        lay(&format!("Mounts.{target}.Source"), &mount["Source"], facts);
    } else if !random {
        lay(&format!("Mounts.{target}.Name"), &mount["Name"], facts);
    }
}

/// The name of a volume that has none.
fn is_random(name: &str) -> bool {
    name.len() == 64 && name.chars().all(|c| c.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(inspected: &Value, expect: &[(&str, &str)]) {
        let got = facts(inspected);
        let got: Vec<(&str, &str)> = got.iter().map(|(key, value)| (&**key, &**value)).collect();
        assert_eq!(got, expect);
    }

    #[test]
    fn sets_are_sorted_and_command_lines_are_not() {
        let inspected = json!({
            "Config": {"Cmd": ["b", "a"], "Env": ["B=1", "A="]},
            "HostConfig": {"CapAdd": ["B", "A"], "CapDrop": [], "Dns": null, "Cgroup": ""},
        });
        check(
            &inspected,
            &[
                ("Config.Cmd", "\"b\" \"a\""),
                ("Config.Env.A", "\"\""),
                ("Config.Env.B", "\"1\""),
                ("HostConfig.CapAdd", "\"A\" \"B\""),
            ],
        );
    }

    #[test]
    fn what_the_engine_chose_itself_is_no_fact() {
        let id = "0123456789abcdef";
        let inspected = json!({
            "Id": id,
            "Config": {"Hostname": &id[..12], "ExposedPorts": {"80/tcp": {}}, "Volumes": {}},
            "NetworkSettings": {"Networks": {"p_back": {"Aliases": ["web", &id[..12]]}}},
        });
        check(
            &inspected,
            &[
                ("Config.ExposedPorts.80/tcp", "{}"),
                ("Networks.back", "attached"),
                ("Networks.back.Aliases", "\"web\""),
            ],
        );
    }

    #[test]
    fn mounts_are_told_by_their_place() {
        let inspected = json!({"Mounts": [
            {"Destination": "/a", "Type": "volume", "Name": "n", "Source": "/x", "RW": true},
            {"Destination": "/b", "Type": "bind", "Source": "/x", "RW": false},
        ]});
        check(
            &inspected,
            &[
                ("Mounts./a.Name", "\"n\""),
                ("Mounts./a.RW", "true"),
                ("Mounts./a.Type", "\"volume\""),
                ("Mounts./b.RW", "false"),
                ("Mounts./b.Source", "\"/x\""),
                ("Mounts./b.Type", "\"bind\""),
            ],
        );
    }
}
