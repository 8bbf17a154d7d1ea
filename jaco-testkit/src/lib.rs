//! What tests and labs are built from: fakes, contracts, simulation, bed.

pub mod bed;
pub mod builders;
pub mod contract;
pub mod fakes;
pub mod project;
pub mod sim;
pub mod soak;
