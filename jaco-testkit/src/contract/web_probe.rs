//! What every `WebProbe` promises.

use std::net::IpAddr;

use jaco_core::certs::Probed;
use jaco_core::id::Domain;
use jaco_core::ports::WebProbe;

/// A web that the probe can reach from this node.
pub struct World {
    /// Answers `/page` of [`World::host`] with 200 and the body `ours`, `/elsewhere` with a
    /// redirect to it (status 302, no body), and every other host with 404 and no body.
    pub server: IpAddr,
    /// The only host of the server.
    pub host: Domain,
    /// An address where nobody listens.
    pub nobody: IpAddr,
    /// An address that accepts and never answers.
    pub mute: IpAddr,
}

/// Runs every check.
pub async fn suite(probe: &dyn WebProbe, world: &World) {
    let World { server, host, .. } = world;
    let answered = |status, body: &str| Probed::Answered {
        status,
        body: body.to_owned(),
    };
    let page = probe.fetch(None, *server, host, "/page").await;
    assert_eq!(page, answered(200, "ours"));
    let elsewhere = probe.fetch(None, *server, host, "/elsewhere").await;
    assert_eq!(elsewhere, answered(302, ""), "a redirect is not followed");
    let other = Domain::from("other.test");
    let other = probe.fetch(None, *server, &other, "/page").await;
    assert_eq!(other, answered(404, ""), "the host is the one asked for");
    for silent in [world.nobody, world.mute] {
        let probed = probe.fetch(None, silent, host, "/page").await;
        let told = matches!(&probed, Probed::Silent(why) if !why.is_empty());
        assert!(told, "{silent}: {probed:?}");
    }
}
