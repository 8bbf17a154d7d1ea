//! Which address the control plane binds and others dial (spec 11).

use std::net::{IpAddr, Ipv4Addr};

use crate::error::{Error, ErrorCode};

/// The host to use: what was configured, or the one private address of the machine.
///
/// # Errors
/// `config_invalid`, listing the candidates, when there is not exactly one.
pub fn choose(key: &str, configured: &str, machine: &[IpAddr]) -> Result<IpAddr, Error> {
    let address: IpAddr = configured.parse().map_err(|_| {
        let message = format!("{key}: \"{configured}\" is not an IP address");
        Error::new(ErrorCode::ConfigInvalid, message).with("field", key)
    })?;
    if !address.is_unspecified() {
        return Ok(address);
    }
    let private: Vec<IpAddr> = machine.iter().copied().filter(is_private).collect();
    match private.as_slice() {
        [one] => Ok(*one),
        several => {
            let list: Vec<String> = several.iter().map(IpAddr::to_string).collect();
            let list = if list.is_empty() {
                "none".to_owned()
            } else {
                list.join(", ")
            };
            let message = format!(
                "{key}: {configured} means the one private address of this machine, and it has: \
                 {list}; name the address to use"
            );
            Err(Error::new(ErrorCode::ConfigInvalid, message)
                .with("field", key)
                .with("candidates", list))
        }
    }
}

fn is_private(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_private() || v4.is_link_local() || is_cgnat(*v4),
        IpAddr::V6(_) => false,
    }
}

/// 100.64.0.0/10.
fn is_cgnat(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    first == 100 && (64..128).contains(&second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unspecified_host_is_the_one_private_address() {
        let public: IpAddr = "8.8.8.8".parse().unwrap();
        let private: IpAddr = "10.1.2.3".parse().unwrap();
        let other: IpAddr = "100.64.0.1".parse().unwrap();
        assert_eq!(
            choose("listen_addr", "0.0.0.0", &[public, private]).unwrap(),
            private
        );
        assert_eq!(
            choose("listen_addr", "8.8.8.8", &[private]).unwrap(),
            public
        );
        for machine in [vec![public], vec![private, other]] {
            let error = choose("listen_addr", "0.0.0.0", &machine).unwrap_err();
            assert_eq!(error.code, ErrorCode::ConfigInvalid);
        }
    }
}
