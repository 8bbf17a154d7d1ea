//! Nodes that come back.
#![allow(clippy::unwrap_used)] // a test that fails says where

use jaco_core::cluster::Command;
use jaco_core::cluster::node::{NodeCondition, NodeStatus};
use jaco_core::id::NodeName;
use jaco_core::scheduler::plan;
use jaco_testkit::builders::{Cluster, deployment, service};

#[test]
fn a_node_that_returns_is_ready_once_nothing_old_is_left_on_it() {
    let mut cluster = Cluster::of(2);
    let web = deployment("d", [("web", service(2, "a"))]);
    cluster.deploy(web).unwrap();
    cluster.settle();
    let back = |cluster: &mut Cluster, condition| {
        let node = NodeName::new("n2");
        cluster.must(Command::NodeCondition { node, condition });
    };
    back(&mut cluster, NodeCondition::Unreachable);
    cluster.settle();
    back(&mut cluster, NodeCondition::Reachable);
    let status = |cluster: &Cluster| cluster.state.nodes["n2"].status();
    assert_eq!(status(&cluster), NodeStatus::Joining);
    assert_eq!(plan(&cluster.state, cluster.now), Vec::new());
    // A word from before it came back says nothing.
    let (node, index) = (NodeName::new("n2"), cluster.state.index);
    let early = index - 1;
    let name = node.clone();
    cluster.must(Command::Swept {
        node: name,
        index: early,
    });
    assert_eq!(status(&cluster), NodeStatus::Joining);
    cluster.must(Command::Swept { node, index });
    assert_eq!(status(&cluster), NodeStatus::Ready);
    assert!(cluster.schedule(), "it gets its share");
}
