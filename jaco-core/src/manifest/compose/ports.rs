//! `ports`: short and long forms, ranges, TCP and UDP.

use super::Placed;
use crate::error::ErrorCode;
use crate::manifest::read::{Fields, View, choice, list, port, string};
use crate::manifest::spec::{Protocol, PublishedPort};

/// Every host port that a service opens. A bare container port is documentation and opens
/// nothing.
pub(super) fn ports(service: &str, view: View<'_>) -> Option<Vec<Placed<PublishedPort>>> {
    let entries = list(|item| {
        let entry = match item.node.as_mapping() {
            Some(_) => long(item),
            None => short(item),
        }?;
        Some(entry.publish(service, item))
    })(view)?;
    Some(entries.into_iter().flatten().collect())
}

/// One entry, in either form.
struct PortEntry {
    /// As it is written, or as the short form would be.
    text: String,
    host: Option<Range>,
    container: Range,
    protocol: Protocol,
    proxy_protocol: bool,
}

/// Inclusive.
#[derive(Clone, Copy)]
struct Range {
    first: u16,
    last: u16,
}

impl Range {
    fn len(self) -> u32 {
        u32::from(self.last - self.first) + 1
    }
}

impl PortEntry {
    fn publish(&self, service: &str, view: View<'_>) -> Vec<Placed<PublishedPort>> {
        let Some(host) = self.host else {
            return Vec::new();
        };
        if host.len() != self.container.len() {
            let message = format!("port ranges of {:?} differ in length", self.text);
            return view.invalid(message).unwrap_or_default();
        }
        (host.first..=host.last)
            .zip(self.container.first..=self.container.last)
            .filter(|(host, _)| !self.is_reserved(*host, service, view))
            .map(|(host, container)| Placed {
                name: self.text.clone(),
                path: view.path.to_string(),
                at: view.at(),
                value: PublishedPort {
                    host,
                    container,
                    protocol: self.protocol,
                    proxy_protocol: self.proxy_protocol,
                },
            })
            .collect()
    }

    fn is_reserved(&self, host: u16, service: &str, view: View<'_>) -> bool {
        let owner = RESERVED.iter().find(|(port, _)| *port == host);
        if let Some((_, owner)) = owner {
            let message = format!(
                "service {service:?} publishes reserved host port {host} (entry {:?}); {owner}",
                self.text
            );
            let details = [("port", &*host.to_string()), ("service", service)];
            view.refuse::<()>(ErrorCode::ReservedPort, message, &details);
        }
        owner.is_some()
    }
}

/// Ports of a host that are never a service's, and whose they are. Those of a cluster that was set
/// up with others are known where its state is.
const RESERVED: [(u16, &str); 7] = [
    (80, "80 and 443 belong to JACO's HTTP/S ingress"),
    (443, "80 and 443 belong to JACO's HTTP/S ingress"),
    (22, "22 belongs to the host's SSH server"),
    (53, "53 belongs to the DNS of the containers"),
    (7000, "7000 and 7001 belong to JACO's daemons"),
    (7001, "7000 and 7001 belong to JACO's daemons"),
    (51820, "51820 belongs to the mesh"),
];

fn short(view: View<'_>) -> Option<PortEntry> {
    let text = string(view)?;
    let (numbers, protocol) = match text.split_once('/') {
        None => (&*text, Protocol::Tcp),
        Some((numbers, "tcp")) => (numbers, Protocol::Tcp),
        Some((numbers, "udp")) => (numbers, Protocol::Udp),
        Some((_, other)) => {
            return view.invalid(format!("protocol {other:?} must be tcp or udp"));
        }
    };
    let mut parts = numbers.rsplitn(3, ':');
    let container = parts.next().and_then(range);
    let host = parts.next().map(range);
    if parts.next().is_some() {
        return host_address(view, &text);
    }
    match (host, container) {
        (Some(None), _) | (_, None) => view.invalid(format!(
            "port {text:?} is not [HOST:]CONTAINER[/PROTOCOL] with ports from 1 to 65535"
        )),
        (host, Some(container)) => Some(PortEntry {
            host: host.flatten(),
            container,
            protocol,
            proxy_protocol: false,
            text,
        }),
    }
}

/// A port opens on every node, so that an address of one host can mean nothing.
fn host_address<T>(view: View<'_>, text: &str) -> Option<T> {
    view.invalid(format!(
        "port {text:?} names a host address; JACO opens a published port on every node"
    ))
}

fn range(text: &str) -> Option<Range> {
    let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => text.parse::<u16>().ok().filter(|port| *port > 0),
        false => None,
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some(Range { first, last })
}

fn long(view: View<'_>) -> Option<PortEntry> {
    let mut fields = view.fields()?;
    let target = fields.require("target", port);
    let published = fields.take("published", |view| {
        range(&string(view)?).or_else(|| view.expected("a port, or a range of ports"))
    });
    let protocol = fields.take(
        "protocol",
        choice(&[("tcp", Protocol::Tcp), ("udp", Protocol::Udp)]),
    );
    let proxy_protocol = proxy_protocol(&mut fields, protocol);
    fields.take("host_ip", |view| host_address::<()>(view, &string(view)?));
    fields.take("mode", choice(&[("ingress", ()), ("host", ())]));
    fields.take("name", string);
    fields.take("app_protocol", string);
    fields.close();
    let (protocol, target) = (protocol.unwrap_or(Protocol::Tcp), target?);
    Some(PortEntry {
        text: spelled(published, target, protocol),
        host: published,
        container: Range {
            first: target,
            last: target,
        },
        protocol,
        proxy_protocol,
    })
}

/// Told at the beginning of a connection, which UDP has not.
fn proxy_protocol(fields: &mut Fields<'_>, protocol: Option<Protocol>) -> bool {
    let told = fields.take("x-jaco-proxy-protocol", |view| {
        choice(&[("v2", ())])(view)?;
        match protocol {
            Some(Protocol::Udp) => view.invalid("the PROXY protocol is for TCP ports".to_owned()),
            _ => Some(()),
        }
    });
    told.is_some()
}

/// The short form of a long entry.
fn spelled(host: Option<Range>, container: u16, protocol: Protocol) -> String {
    let host = match host {
        None => String::new(),
        Some(host) if host.first == host.last => format!("{}:", host.first),
        Some(host) => format!("{}-{}:", host.first, host.last),
    };
    match protocol {
        Protocol::Tcp => format!("{host}{container}"),
        Protocol::Udp => format!("{host}{container}/udp"),
    }
}
