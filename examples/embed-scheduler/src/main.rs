//! The scheduler core in a program of its own: own data, own clock, own machines.
//!
//! The core is functions from data to data, so that embedding it takes a log (here: a list in
//! memory), a clock and something that obeys. See README.md for what it prints.

mod engine;
mod machines;
mod world;

use std::io::{self, Write};

use jaco_core::cluster::node::NodeCondition;
use jaco_core::cluster::{ClusterState, Command};
use jaco_core::scheduler::explain;

use machines::Machines;
use world::World;

fn main() -> io::Result<()> {
    story(&mut io::stdout())
}

/// Places a service and a database on three machines, and loses the machine with the database.
fn story(out: &mut impl Write) -> io::Result<()> {
    let mut machines = Machines::of(&["oslo", "lima", "kyiv"]);
    let mut world = World::of(&machines.describe().map_err(io::Error::other)?);

    writeln!(out, "== deploy: web x4, db x1 with a volume")?;
    world.write(world::shop());
    settle(&mut world, &machines, out)?;

    let home = world.home_of("db");
    writeln!(out, "== {home} is lost")?;
    let (node, condition) = (home.clone(), NodeCondition::Unreachable);
    world.write(Command::NodeCondition { node, condition });
    machines.lose(&home);
    settle(&mut world, &machines, out)?;
    why(&world.state, out)?;

    writeln!(out, "== {home} is back")?;
    let (node, condition) = (home, NodeCondition::Reachable);
    world.write(Command::NodeCondition { node, condition });
    machines.find();
    settle(&mut world, &machines, out)
}

/// The whole control loop: plan, commit, obey, report, until there is nothing to do.
fn settle(world: &mut World, machines: &Machines, out: &mut impl Write) -> io::Result<()> {
    loop {
        let steps = world.plan();
        for step in &steps {
            writeln!(out, "   plan  {}", world::tell(step))?;
        }
        let planned = !steps.is_empty();
        if planned {
            let after = world.state.index;
            world.write(Command::Schedule { after, steps });
        }
        let reports = machines.obey(&world.state, world.now(), out)?;
        if !planned && reports.is_empty() {
            return Ok(());
        }
        for report in reports {
            world.write(report);
        }
    }
}

/// What the core says about each machine, for one more replica of each service.
fn why(state: &ClusterState, out: &mut impl Write) -> io::Result<()> {
    for deployment in state.deployments.values() {
        for (name, service) in &deployment.spec().services {
            for (node, rejection) in explain::placement(state, deployment, name, service) {
                let verdict = rejection.map_or("would take one more".to_owned(), |r| r.to_string());
                writeln!(out, "   why   {name} on {node}: {verdict}")?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_story_ends_with_everything_running_and_the_database_at_home() {
        let mut out = Vec::new();
        story(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.matches("plan  place db").count(), 1, "{text}");
        assert!(text.matches("plan  place web").count() > 4, "{text}");
        assert!(text.contains("unreachable"), "{text}");
    }
}
