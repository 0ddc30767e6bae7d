//! All processes of a job.

use std::cell::Cell;
use std::ffi::c_int;
use std::time::Duration;

use mpi::Threading;
use mpi::ffi;
use mpi::topology::Communicator;
use qoft_train::group::{Group, GroupError};

use crate::link::{Message, Tag, checked};
use crate::patience::Patience;

/// How long the others are waited for unless [`World::set_timeout`] says otherwise.
const TIMEOUT: Duration = Duration::from_secs(1800);
/// How long a process that failed waits for rank 0 to say so and end all of them.
const LAST_WAIT: Duration = Duration::from_secs(60);

/// All processes that a launcher started, as one of them sees it.
#[derive(Debug)]
pub struct World {
    pub(crate) rank: usize,
    pub(crate) size: usize,
    pub(crate) timeout: Cell<Duration>,
}

impl World {
    /// Joins the other processes. This thread is the one that calls all methods.
    ///
    /// # Errors
    /// If the library was initialized already, or does not allow for other threads beside this one.
    pub fn begin() -> Result<Self, GroupError> {
        let (universe, threading) = mpi::initialize_with_threading(Threading::Funneled)
            .ok_or_else(|| GroupError::Library("MPI was initialized before".into()))?;
        let world = universe.world();
        let (rank, size) = (world.rank(), world.size());
        // Dropping it would wait for the others, also where one of them failed: `end` does it.
        std::mem::forget(universe);
        if threading == Threading::Single {
            let reason = "this MPI library allows for one thread only, and computing takes several";
            return Err(GroupError::Library(reason.into()));
        }
        // SAFETY: the library is initialized. What goes wrong is told by codes from now on.
        checked(unsafe {
            ffi::MPI_Comm_set_errhandler(ffi::RSMPI_COMM_WORLD, ffi::RSMPI_ERRORS_RETURN)
        })?;
        Ok(Self {
            rank: usize::try_from(rank).unwrap_or(0),
            size: usize::try_from(size).unwrap_or(1),
            timeout: Cell::new(TIMEOUT),
        })
    }

    /// Waits for others so long before it is an error.
    pub fn set_timeout(&self, timeout: Duration) {
        self.timeout.set(timeout);
    }

    /// Leaves the others, when all of them are through. Nothing else is called afterwards.
    ///
    /// # Errors
    /// If one of them does not come here.
    pub fn end(&self) -> Result<(), GroupError> {
        self.gather_values(&[])?;
        // SAFETY: the library is initialized, and nothing is under way.
        checked(unsafe { ffi::MPI_Finalize() })
    }

    /// Tells rank 0, which ends all processes, that this one failed, and waits for that. Returns if it does
    /// not happen; on rank 0 at once.
    pub fn fail(&self, text: &str) {
        if self.rank == 0 {
            return;
        }
        let Ok(mut message) = Message::send(0, Tag::Failure, text.as_bytes()) else {
            return;
        };
        let mut patience = Patience::new(LAST_WAIT.min(self.timeout.get()));
        // Looking is what moves the message.
        while message.is_done().is_ok() && patience.wait() {}
    }

    /// Ends all processes.
    pub fn abort(&self, code: u8) -> ! {
        // SAFETY: the library is initialized.
        unsafe { ffi::MPI_Abort(ffi::RSMPI_COMM_WORLD, c_int::from(code)) };
        // Where the library returns from that.
        std::process::exit(i32::from(code))
    }

    pub(crate) fn patience(&self) -> Patience {
        Patience::new(self.timeout.get())
    }
}

impl Group for World {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>, GroupError> {
        self.gather_values(own)
    }

    fn exchange(&self, to: &[&[f32]], from: &[usize]) -> Result<Vec<Vec<f32>>, GroupError> {
        let others = || (0..self.size).filter(|rank| *rank != self.rank);
        let receiving = others()
            .filter(|rank| from[*rank] > 0)
            .map(|rank| Message::receive(rank, Tag::Slice, from[rank]));
        let mut receiving: Vec<Message<f32>> = receiving.collect::<Result<_, _>>()?;
        let sending = others()
            .filter(|rank| !to[*rank].is_empty())
            .map(|rank| Message::send(rank, Tag::Slice, to[rank]));
        let mut sending: Vec<Message<f32>> = sending.collect::<Result<_, _>>()?;
        // Looking at one message moves all of them.
        self.finish(&mut receiving)?;
        self.finish(&mut sending)?;
        let mut found = vec![Vec::new(); self.size];
        found[self.rank] = to[self.rank].to_vec();
        for message in receiving {
            let peer = message.peer;
            found[peer] = message.into_values();
        }
        Ok(found)
    }
}
