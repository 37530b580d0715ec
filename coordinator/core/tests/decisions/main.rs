//! Tests of the decision core from outside: golden scenarios, single rules with the effects that they emit, and random
//! proposals. All of them use a [`world::World`]: the real core, a fake clock, and members that say what they are told to.

mod choice;
mod codec;
mod detection;
mod explain;
mod import;
mod leases;
mod levels;
mod loss;
mod member;
mod member_changes;
mod membership;
mod parameters;
mod precedence;
mod random;
mod restarts;
mod rules;
mod scenarios;
mod script;
mod world;
