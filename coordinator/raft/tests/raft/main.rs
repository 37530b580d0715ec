//! Three members in one process, over real loopback connections that can be cut in each direction, and one member in
//! a process of its own that is killed.

mod cuts;
mod damage;
mod group;
mod kill;
mod life;
mod links;
