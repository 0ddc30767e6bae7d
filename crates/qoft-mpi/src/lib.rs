//! Processes that an MPI launcher started (`mpirun`, `srun`), as a [`Group`](qoft_train::group::Group).
//!
//! Without the Cargo feature `mpi` there is nothing here: the crate needs an MPI library, its compiler
//! wrapper `mpicc` and libclang to build.
//!
//! Messages go from one process to another, never through MPI's collective operations: so a process that
//! does not answer can be named, and sums are made in an order of our own. All calls come from the thread
//! that began (`World::begin`).

#[cfg(feature = "mpi")]
mod hub;
#[cfg(feature = "mpi")]
mod link;
// What needs no MPI library is tested without one.
#[cfg(any(feature = "mpi", test))]
mod packed;
#[cfg(any(feature = "mpi", test))]
mod patience;
#[cfg(feature = "mpi")]
mod signs;
#[cfg(feature = "mpi")]
mod world;

#[cfg(feature = "mpi")]
pub use world::World;
