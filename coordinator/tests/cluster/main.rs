//! Three real coordinators in one process, over real loopback connections, with scripted agents.

mod agent;
mod callout;
mod certificates;
mod failover;
mod fencing;
mod group;
mod hooks;
mod identity;
mod leases;
mod levels;
mod link;
mod membership;
mod operators;
