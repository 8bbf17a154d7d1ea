//! Echo requests as IPv4 packets, and telling their answers from other packets.

use std::net::Ipv4Addr;

/// Bytes by which an echo is known as ours; the first two are its identifier.
pub(super) const TOKEN: usize = 16;

const IP_HEADER: usize = 20;
const ICMP_HEADER: usize = 8;
/// Where the checksum is, of the ICMP part.
const CHECKSUM: usize = 2;
const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;

/// A whole packet that may not be cut on its way. The kernel fills in its source and checksum.
pub(super) fn request(to: Ipv4Addr, size: u16, token: &[u8; TOKEN]) -> Vec<u8> {
    let mut packet = vec![0; usize::from(size).max(IP_HEADER + ICMP_HEADER + TOKEN)];
    let (header, icmp) = packet.split_at_mut(IP_HEADER);
    header[0] = 0x45;
    header[2..4].copy_from_slice(&size.to_be_bytes());
    // Don't fragment.
    header[6] = 0x40;
    // As many hops as are common, and the protocol ICMP.
    header[8..10].copy_from_slice(&[64, 1]);
    header[16..20].copy_from_slice(&to.octets());
    icmp[0] = ECHO_REQUEST;
    icmp[4..6].copy_from_slice(&token[..2]);
    icmp[ICMP_HEADER..ICMP_HEADER + TOKEN].copy_from_slice(token);
    let sum = checksum(icmp);
    icmp[CHECKSUM..CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// True for the whole answer to a request, from where the request was sent to.
pub(super) fn is_echo(packet: &[u8], request: &[u8]) -> bool {
    let header = usize::from(packet.first().unwrap_or(&0) & 0xf) * 4;
    if header < IP_HEADER || packet.len() < header + ICMP_HEADER {
        return false;
    }
    let (wanted, icmp) = (&request[IP_HEADER..], &packet[header..]);
    icmp[0] == ECHO_REPLY && packet[12..16] == request[16..20] && icmp[4..] == wanted[4..]
}

/// The checksum of the internet (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| {
        let low = pair.get(1).copied().unwrap_or(0);
        u32::from(u16::from_be_bytes([pair[0], low]))
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // It fits into 16 bits now.
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TO: Ipv4Addr = Ipv4Addr::new(10, 245, 0, 2);

    fn answer(request: &[u8]) -> Vec<u8> {
        let mut packet = request.to_vec();
        packet[12..16].copy_from_slice(&TO.octets());
        packet[IP_HEADER] = ECHO_REPLY;
        packet
    }

    #[test]
    fn a_sum_over_a_request_with_its_checksum_is_zero() {
        for size in [64, 65, 1420] {
            let packet = request(TO, size, &[7; TOKEN]);
            assert_eq!(packet.len(), usize::from(size));
            assert_eq!(checksum(&packet[IP_HEADER..]), 0);
        }
    }

    #[test]
    fn only_the_whole_answer_to_this_request_counts() {
        let ours = request(TO, 64, &[7; TOKEN]);
        assert!(is_echo(&answer(&ours), &ours));
        assert!(!is_echo(&ours, &ours), "the request itself");
        assert!(!is_echo(&answer(&request(TO, 64, &[8; TOKEN])), &ours));
        assert!(!is_echo(&answer(&ours)[..60], &ours), "cut short");
    }

    proptest! {
        #[test]
        fn no_packet_panics(bytes in prop::collection::vec(any::<u8>(), 0..128)) {
            prop_assert!(!is_echo(&bytes, &request(TO, 64, &[7; TOKEN])));
        }
    }
}
