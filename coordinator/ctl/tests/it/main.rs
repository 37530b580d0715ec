//! One test binary: the real `regentctl` against a fake coordinator.

mod certificates;
mod commands;
mod drill;
mod members;
mod pages;
mod parameters;
mod restraint;
mod samples;
mod support;
