//! The processes that a launcher started together (`mpirun`, `srun`), of which this is one.

mod threads;

use std::env::current_exe;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, bail, ensure};
use qoft::train::group::{Alone, Group, check_same};
use qoft::train::train::Digest;
#[cfg(feature = "mpi")]
use qoft_mpi::World;

use crate::args::Command;
use crate::{launcher, print, stop};

/// All processes, as this one sees them.
pub struct Processes {
    #[cfg(feature = "mpi")]
    world: Option<World>,
}

impl Processes {
    /// This one, without others.
    pub fn alone() -> Self {
        Self {
            #[cfg(feature = "mpi")]
            world: None,
        }
    }

    /// Joins the others, if a launcher started some. From then on only the first one says more than errors.
    pub fn begin() -> Result<Self> {
        let launched = launcher::processes().filter(|(_, count)| *count > 1);
        let Some((variable, count)) = launched else {
            return Ok(Self::alone());
        };
        let processes = Self::joined()?;
        let found = processes.group().size();
        print::speak_as(processes.group().rank());
        let said = format!("a launcher says that it started {count} processes ({variable})");
        ensure!(
            cfg!(feature = "mpi"),
            "{said}, and this build of qoft cannot share work among them: build it with the Cargo feature \
             `mpi`, or start it once"
        );
        ensure!(
            found == count,
            "{said}, and the MPI library of this program knows of {found}: it is not the one of the \
             launcher; `srun --mpi=list` shows what SLURM can start"
        );
        Ok(processes)
    }

    #[cfg(feature = "mpi")]
    fn joined() -> Result<Self> {
        let world = Some(World::begin()?);
        Ok(Self { world })
    }

    #[cfg(not(feature = "mpi"))]
    fn joined() -> Result<Self> {
        Ok(Self::alone())
    }

    /// All of them.
    pub fn group(&self) -> &dyn Group {
        #[cfg(feature = "mpi")]
        if let Some(world) = &self.world {
            return world;
        }
        &Alone
    }

    /// Whether this one writes what is written, and says what is said.
    pub fn is_first(&self) -> bool {
        self.group().rank() == 0
    }

    /// Fails unless they can run the command together, and all are the same program.
    pub fn check_command(&self, command: &Command) -> Result<()> {
        let count = self.group().size();
        if count == 1 {
            return Ok(());
        }
        let Some(options) = command.processes() else {
            bail!(
                "this command runs in one process, and a launcher started {count}: each would do the same; \
                 `train` and `eval` share their work"
            );
        };
        #[cfg(feature = "mpi")]
        if let (Some(world), Some(timeout)) = (&self.world, options.timeout()) {
            world.set_timeout(timeout);
        }
        #[cfg(not(feature = "mpi"))]
        let _ = options;
        let program = current_exe().context("this program")?;
        let digest = Digest::of_file(&program)?;
        let version = format!("{} ({digest})", env!("CARGO_PKG_VERSION"));
        Ok(check_same(
            self.group(),
            &[("the program".to_owned(), version)],
        )?)
    }

    /// The number of threads of each of them: `given`, or if that is 0 a share of the processors.
    pub fn threads(&self, given: usize) -> Result<usize> {
        if self.group().size() == 1 {
            return Ok(given);
        }
        let threads = threads::share(self.group(), given)?;
        let own = [("the number of threads".to_owned(), threads.to_string())];
        check_same(self.group(), &own).context("--threads gives all of them the same")?;
        Ok(threads)
    }

    /// Does something on the first process, and then on the others: what it leaves on disk they find.
    pub fn first_then_others<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let group = self.group();
        if group.size() > 1 && group.rank() > 0 {
            group.gather(&[])?;
        }
        let done = work()?;
        if group.size() > 1 && group.rank() == 0 {
            group.gather(&[])?;
        }
        Ok(done)
    }

    /// What all of them exit with after one of them was asked to stop.
    pub fn stopped(&self) -> Result<u8> {
        let own = match stop::requested().load(Ordering::Relaxed) {
            true => stop::Stopped::code(),
            false => 0,
        };
        let codes = self.group().gather(&[own])?.concat();
        let code = codes.into_iter().max().filter(|code| *code > 0);
        Ok(code.unwrap_or_else(stop::Stopped::code))
    }

    /// Leaves the others when all of them are through.
    pub fn end(&self) -> Result<()> {
        #[cfg(feature = "mpi")]
        if let Some(world) = &self.world {
            world.end()?;
        }
        Ok(())
    }

    /// Ends all of them after an error. `say` says it, which is left to the first process where that is
    /// still there.
    pub fn fail(&self, text: &str, say: impl FnOnce()) {
        #[cfg(feature = "mpi")]
        if let Some(world) = &self.world {
            world.fail(text);
            say();
            world.abort(1);
        }
        let _ = text;
        say();
    }
}
