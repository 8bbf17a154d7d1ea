//! What a host that shows a join token may call itself (spec 10, Between members).

use std::net::IpAddr;

use super::state::ClusterState;
use super::token::JoinToken;
use crate::error::{Error, ErrorCode};
use crate::id::{NodeName, is_dns_label};

/// What a joiner says of itself, and where it says it from.
#[derive(Clone, Copy, Debug)]
pub struct Joiner<'a> {
    /// Its hostname.
    pub name: &'a NodeName,
    /// Where the connection came from; absent when it came over no network.
    pub from: Option<IpAddr>,
    /// The hosts at which it wants to be dialled.
    pub advertised: [&'a str; 2],
}

/// The names and addresses that its certificate carries besides the hostname: what the token
/// lists, or else where it came from.
///
/// # Errors
/// `validation_failed` for a hostname that is none, for a name or address of another member, and
/// for an advertised host that the certificate would not be good for.
pub fn sans(
    state: &ClusterState,
    token: &JoinToken,
    joiner: Joiner<'_>,
) -> Result<Vec<String>, Error> {
    let invalid = |field: &str, message: String| {
        Err(Error::new(ErrorCode::ValidationFailed, message).with("field", field))
    };
    let name = joiner.name.as_str();
    let labels = name.split('.').map(str::to_ascii_lowercase);
    let is_name = name.len() <= 253 && labels.into_iter().all(|label| is_dns_label(&label, 63));
    if !is_name || name.parse::<IpAddr>().is_ok() {
        return invalid("hostname", format!("\"{name}\" is not a hostname"));
    }
    let from = joiner.from.map(|from| from.to_canonical().to_string());
    let sans: Vec<String> = match token.sans.is_empty() {
        true => from.into_iter().collect(),
        false => token.sans.clone(),
    };
    let is_others = |san: &&String| {
        let mut members = state.nodes.values();
        members.any(|node| san.eq_ignore_ascii_case(node.name.as_str()) || **san == node.host())
    };
    if let Some(taken) = sans.iter().find(is_others) {
        return invalid("sans", format!("\"{taken}\" is another member's"));
    }
    let is_good = |host: &str| host == name || sans.iter().any(|san| san == host);
    let wrong = joiner.advertised.into_iter().find(|host| !is_good(host));
    let Some(wrong) = wrong.filter(|_| joiner.from.is_some()) else {
        return Ok(sans);
    };
    let message = format!(
        "\"{name}\" wants to be dialled at {wrong}, and its certificate would be for {}; issue \
         the join token with --san {wrong}",
        if sans.is_empty() {
            name.to_owned()
        } else {
            sans.join(", ")
        },
    );
    invalid("advertise_addr", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    fn token(sans: &[&str]) -> JoinToken {
        JoinToken {
            node: None,
            sans: sans.iter().map(|san| (*san).to_owned()).collect(),
            issued_at: Timestamp(0),
            expires_at: Timestamp(1),
            used: None,
        }
    }

    fn check(name: &str, sans_of_token: &[&str], host: &str) -> Result<Vec<String>, Error> {
        let state = ClusterState::default();
        let joiner = Joiner {
            name: &NodeName::new(name),
            from: Some([10, 0, 0, 9].into()),
            advertised: [host, host],
        };
        sans(&state, &token(sans_of_token), joiner)
    }

    #[test]
    fn a_certificate_names_what_the_token_lists_or_where_the_joiner_came_from() {
        assert_eq!(
            check("node-9", &[], "10.0.0.9").ok(),
            Some(vec!["10.0.0.9".to_owned()])
        );
        assert!(check("node-9", &["192.0.2.1"], "192.0.2.1").is_ok());
        let other = check("node-9", &[], "10.0.0.1").map_err(|error| error.message);
        assert!(other.is_err_and(|message| message.contains("--san 10.0.0.1")));
        for name in ["10.0.0.1", "", "a b", "-a", "x.-y", "a\u{1b}[31m"] {
            assert!(check(name, &[], "10.0.0.9").is_err(), "{name}");
        }
    }
}
