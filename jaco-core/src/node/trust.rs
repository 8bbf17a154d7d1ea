//! Load balancers whose word about a visitor's address counts (spec 08; `ingress.trusted_proxies`
//! in spec 11).
//!
//! Invariant (`tests/ingress_props.rs`): an address is trusted exactly if its leading bits are
//! those of a block.

use std::net::IpAddr;

use crate::error::{Error, ErrorCode};

/// Addresses and blocks of addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedPeers {
    blocks: Vec<Block>,
    /// Where containers are: none of them is a load balancer.
    never: Vec<Block>,
}

/// The addresses that begin with the first `length` bits of `base`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Block {
    base: IpAddr,
    length: u32,
}

impl TrustedPeers {
    /// Reads the values of `ingress.trusted_proxies`: addresses, or blocks like `10.0.0.0/8`.
    ///
    /// # Errors
    /// `config_invalid` for the first that is neither.
    pub fn read(list: &[String]) -> Result<Self, Error> {
        let block = |(index, text): (usize, &String)| {
            Block::read(text).ok_or_else(|| {
                let key = format!("ingress.trusted_proxies[{index}]");
                let message =
                    format!("{key}: \"{text}\" is not an IP address or a block like 10.0.0.0/8");
                Error::new(ErrorCode::ConfigInvalid, message).with("field", &key)
            })
        };
        let blocks = list.iter().enumerate().map(block);
        Ok(Self {
            blocks: blocks.collect::<Result<_, _>>()?,
            never: Vec::new(),
        })
    }

    /// The same, but for the addresses of containers and of the mesh.
    #[must_use]
    pub fn without(mut self, networks: &[String]) -> Self {
        self.never
            .extend(networks.iter().filter_map(|text| Block::read(text)));
        self
    }

    /// True for an address in one of the blocks.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let is_in = |blocks: &[Block]| blocks.iter().any(|block| block.contains(address));
        is_in(&self.blocks) && !is_in(&self.never)
    }
}

impl Block {
    fn read(text: &str) -> Option<Self> {
        let (base, length) = match text.split_once('/') {
            Some((base, length)) => (base, Some(length)),
            None => (text, None),
        };
        let base = base.parse::<IpAddr>().ok()?.to_canonical();
        let whole = if base.is_ipv4() { 32 } else { 128 };
        let length = match length {
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().ok().filter(|length| *length <= whole)?
            }
            Some(_) => return None,
            None => whole,
        };
        Some(Self { base, length })
    }

    fn contains(&self, address: IpAddr) -> bool {
        match (self.base, address) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                let differs = base.to_bits() ^ address.to_bits();
                differs.leading_zeros() >= self.length
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                let differs = base.to_bits() ^ address.to_bits();
                differs.leading_zeros() >= self.length
            }
            _ => false,
        }
    }
}
