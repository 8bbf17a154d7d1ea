//! The kernel's routes and settings behind the `HostNetwork` port (spec 07).

mod passages;

use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use async_trait::async_trait;
use futures::TryStreamExt;
use jaco_core::node::mesh::{INTERFACE, Passage};
use jaco_core::ports::{HostError, HostNetwork};
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteScope};

use crate::transport::links::{Links, code, failed, io_failed};

/// Where the kernel's settings are.
const SETTINGS: &str = "/proc/sys/net/ipv4";

/// This host's kernel.
#[derive(Clone, Copy, Debug, Default)]
pub struct LinuxNetwork;

#[async_trait]
impl HostNetwork for LinuxNetwork {
    async fn routes(&self) -> Result<BTreeSet<Ipv4Addr>, HostError> {
        let links = Links::open()?;
        let Some(index) = links.index(INTERFACE).await? else {
            return Ok(BTreeSet::new());
        };
        let any = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let routes = links.handle.route().get(any).execute();
        let routes: Vec<_> = routes.try_collect().await.map_err(|error| failed(&error))?;
        Ok(routes
            .iter()
            .filter_map(|route| host_route(route, index))
            .collect())
    }

    async fn add_route(&self, to: Ipv4Addr, source: Ipv4Addr) -> Result<(), HostError> {
        let links = Links::open()?;
        let index = links.existing(INTERFACE).await?;
        let route = route(to, index).pref_source(source).build();
        let added = links.handle.route().add(route).replace().execute().await;
        added.map_err(|error| failed(&error))
    }

    async fn remove_route(&self, to: Ipv4Addr) -> Result<(), HostError> {
        let links = Links::open()?;
        let Some(index) = links.index(INTERFACE).await? else {
            return Ok(());
        };
        match links
            .handle
            .route()
            .del(route(to, index).build())
            .execute()
            .await
        {
            Err(error) if code(&error) == Some(nix::libc::ESRCH) => Ok(()),
            done => done.map_err(|error| failed(&error)),
        }
    }

    async fn prepare_bridge(&self, interface: &str) -> Result<(), HostError> {
        // Without a delay of zero a first packet waits up to 0.8 s for its answer.
        set(&format!("conf/{interface}/proxy_arp"), "1")?;
        set(&format!("neigh/{interface}/proxy_delay"), "0")?;
        // Networks are IPv4; what is not there cannot be forged. A host without IPv6 has no such
        // setting.
        let path = format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6");
        match Path::new(&path).exists() {
            true => set_at(Path::new(&path), "1"),
            false => Ok(()),
        }
    }

    async fn ensure_passages(&self, passages: &[Passage]) -> Result<(), HostError> {
        set("ip_forward", "1")?;
        // Loose: what a replica elsewhere sends may come in before its route is there.
        set(&format!("conf/{INTERFACE}/rp_filter"), "2")?;
        passages::ensure(passages).await
    }
}

fn route(to: Ipv4Addr, index: u32) -> RouteMessageBuilder<Ipv4Addr> {
    RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(to, 32)
        .output_interface(index)
        .scope(RouteScope::Link)
}

/// The destination of a /32 route out of an interface, in the main table.
fn host_route(route: &RouteMessage, index: u32) -> Option<Ipv4Addr> {
    let out = route.attributes.contains(&RouteAttribute::Oif(index));
    let main = route.header.table == rtnetlink::packet_route::route::RouteHeader::RT_TABLE_MAIN;
    if !out || !main || route.header.destination_prefix_length != 32 {
        return None;
    }
    route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
            _ => None,
        })
}

/// Writes a setting of the kernel unless it has the value.
fn set(name: &str, value: &str) -> Result<(), HostError> {
    set_at(&Path::new(SETTINGS).join(name), value)
}

fn set_at(path: &Path, value: &str) -> Result<(), HostError> {
    let told = |error: io::Error| match io_failed(&error) {
        HostError::Unavailable(reason) => {
            HostError::Unavailable(format!("{}: {reason}", path.display()))
        }
        HostError::Failed(reason) => HostError::Failed(format!("{}: {reason}", path.display())),
    };
    if std::fs::read_to_string(path).map_err(told)?.trim() == value {
        return Ok(());
    }
    std::fs::write(path, value).map_err(told)
}
