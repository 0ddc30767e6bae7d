//! Threads that share small pieces of work, and stay awake a while for the next one.
//!
//! One token passes a layer in some ten microseconds: less than it takes to wake a thread. So these threads look
//! for work for a moment before they sleep, as those of ggml do. Larger pieces are rayon's.

use std::any::Any;
use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// How long a thread looks for work before it sleeps.
const AWAKE: Duration = Duration::from_micros(400);
/// Looks between two looks at the clock.
const LOOKS: usize = 64;

/// Calls `f` with each of `0..tasks`, on several threads. Where others are at it, or the caller is itself
/// such a task, it calls on its own.
///
/// # Panics
/// If `f` does.
pub(crate) fn each(tasks: usize, f: impl Fn(usize) + Sync) {
    let threads = rayon::current_num_threads().min(tasks);
    if threads > 1
        && let Some(team) = team()
        && let Ok(_caller) = team.callers.try_lock()
    {
        return team.run(tasks, threads - 1, &f);
    }
    (0..tasks).for_each(f);
}

/// Cuts each row of `width` numbers of `out` into pieces of `size`, the last one perhaps shorter, and calls
/// `f` with where a piece begins in `out`, and the piece; as [`each`].
///
/// # Panics
/// If `out` has a part of a row, or `f` panics.
pub(crate) fn pieces(
    out: &mut [f32],
    width: usize,
    size: usize,
    f: impl Fn(usize, &mut [f32]) + Sync,
) {
    let (width, size) = (width.max(1), size.max(1));
    assert!(out.len().is_multiple_of(width), "a part of a row");
    let (start, count) = (Start(out.as_mut_ptr()), width.div_ceil(size));
    each(out.len() / width * count, |task| {
        let (row, first) = (task / count, task % count * size);
        let (at, length) = (row * width + first, size.min(width - first));
        // SAFETY: the piece is a part of `out`, and no other task has any of it.
        let piece = unsafe { std::slice::from_raw_parts_mut(start.at(at), length) };
        f(at, piece);
    });
}

/// Where the numbers begin that tasks write.
struct Start(*mut f32);

impl Start {
    /// The place of a number.
    ///
    /// # Safety
    /// There are more than `index` numbers.
    unsafe fn at(&self, index: usize) -> *mut f32 {
        // SAFETY: as above.
        unsafe { self.0.add(index) }
    }
}

// SAFETY: tasks only reach numbers through it that no other task reaches.
unsafe impl Sync for Start {}

/// The threads of the process, beside those that call; `None` where there can be none.
fn team() -> Option<&'static Team> {
    static TEAM: OnceLock<Option<Team>> = OnceLock::new();
    let new = || {
        // Threads that look for work in turns on one core would keep each other from it.
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Team::new(rayon::current_num_threads().min(cores) - 1)
    };
    TEAM.get_or_init(new).as_ref()
}

/// What the threads are to do.
#[derive(Clone, Copy)]
struct Work {
    f: *const (dyn Fn(usize) + Sync),
    tasks: usize,
    /// Threads that may help.
    helpers: u64,
}

/// The number of the piece of work, whether threads may still join it, and how many have.
#[derive(Clone, Copy, PartialEq)]
struct State(u64);

impl State {
    const OPEN: u64 = 1 << 15;

    fn number(self) -> u64 {
        self.0 >> 16
    }

    fn is_open(self) -> bool {
        self.0 & Self::OPEN != 0
    }

    fn joined(self) -> u64 {
        self.0 & (Self::OPEN - 1)
    }
}

struct Shared {
    state: AtomicU64,
    work: UnsafeCell<Option<Work>>,
    /// The next task that nobody has begun.
    next: AtomicUsize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: the work is written while no thread has joined and none can, and read by those that have.
unsafe impl Sync for Shared {}
// SAFETY: the pointer in the work is to what can be called from any thread.
unsafe impl Send for Shared {}

impl Shared {
    fn state(&self) -> State {
        State(self.state.load(SeqCst))
    }

    /// Does tasks until all have begun.
    fn work(&self, work: Work) {
        loop {
            let task = self.next.fetch_add(1, SeqCst);
            if task >= work.tasks {
                return;
            }
            // SAFETY: whoever made the work waits until all that joined have left.
            let f = unsafe { &*work.f };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| f(task))) {
                self.next.store(work.tasks, SeqCst);
                *self.panic.lock().expect("a lock that only stores") = Some(panic);
                return;
            }
        }
    }

    /// Joins the work that is open, if it is another one than the last; the number of what was done then.
    fn join(&self, last: u64) -> Option<u64> {
        let state = self.state();
        if !state.is_open() || state.number() == last {
            return None;
        }
        let joined = State(state.0 + 1);
        let exchange = self
            .state
            .compare_exchange(state.0, joined.0, SeqCst, SeqCst);
        exchange.ok()?;
        // SAFETY: the work stays as it is until this thread has left it.
        let work = unsafe { *self.work.get() }.expect("work that is open");
        if joined.joined() <= work.helpers {
            self.work(work);
        }
        self.state.fetch_sub(1, SeqCst);
        Some(state.number())
    }
}

struct Helper {
    thread: Thread,
    asleep: Arc<AtomicBool>,
}

struct Team {
    shared: Arc<Shared>,
    helpers: Vec<Helper>,
    /// Held by the one whose work is done.
    callers: Mutex<()>,
}

impl Team {
    fn new(helpers: usize) -> Option<Self> {
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            work: UnsafeCell::new(None),
            next: AtomicUsize::new(0),
            panic: Mutex::new(None),
        });
        let helpers: Vec<Helper> = (0..helpers)
            .map_while(|index| {
                let (shared, asleep) = (shared.clone(), Arc::new(AtomicBool::new(false)));
                let flag = asleep.clone();
                let builder = thread::Builder::new().name(format!("team-{index}"));
                let handle = builder.spawn(move || help(&shared, &flag)).ok()?;
                let thread = handle.thread().clone();
                Some(Helper { thread, asleep })
            })
            .collect();
        let callers = Mutex::new(());
        (!helpers.is_empty()).then_some(Self {
            shared,
            helpers,
            callers,
        })
    }

    /// Does work with so many helpers at most; only one caller at a time may be here.
    fn run(&self, tasks: usize, helpers: usize, f: &(dyn Fn(usize) + Sync)) {
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes, and this function waits for all that use it.
        let f = unsafe {
            std::mem::transmute::<*const (dyn Fn(usize) + Sync), *const (dyn Fn(usize) + Sync)>(f)
        };
        let work = Work {
            f,
            tasks,
            helpers: helpers as u64,
        };
        // SAFETY: the work before is closed, and all have left it.
        unsafe { *shared.work.get() = Some(work) };
        shared.next.store(0, SeqCst);
        let number = shared.state().number() + 1;
        shared.state.store(number << 16 | State::OPEN, SeqCst);
        for helper in self.helpers.iter().take(helpers) {
            if helper.asleep.swap(false, SeqCst) {
                helper.thread.unpark();
            }
        }
        shared.work(work);
        shared.state.fetch_and(!State::OPEN, SeqCst);
        let mut looks = 0;
        while shared.state().joined() > 0 {
            spin_loop();
            looks += 1;
            if looks % (LOOKS * LOOKS) == 0 {
                // A thread that has no core now needs this one.
                thread::yield_now();
            }
        }
        let panic = shared.panic.lock().expect("a lock that only stores").take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

/// The life of a helper.
fn help(shared: &Shared, asleep: &AtomicBool) {
    let mut last = 0;
    loop {
        let began = Instant::now();
        let mut looks = 0;
        while shared.join(last).map(|number| last = number).is_none() {
            spin_loop();
            looks += 1;
            if looks % LOOKS == 0 && began.elapsed() > AWAKE {
                asleep.store(true, SeqCst);
                // Work that came before the flag was up wakes nobody.
                let state = shared.state();
                if !state.is_open() || state.number() == last {
                    thread::park();
                }
                asleep.store(false, SeqCst);
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(tasks: usize) -> usize {
        let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
        each(tasks, |task| {
            counts[task].fetch_add(1, SeqCst);
        });
        assert!(counts.iter().all(|count| count.load(SeqCst) == 1));
        tasks
    }

    #[test]
    fn every_task_is_done_once() {
        let callers: Vec<_> = (0..4)
            .map(|caller| {
                thread::spawn(move || {
                    (0..3000)
                        .map(|round| count((round + caller) % 9))
                        .sum::<usize>()
                })
            })
            .collect();
        for caller in callers {
            assert!(caller.join().unwrap() > 0);
        }
    }

    #[test]
    fn pieces_cover_all_numbers() {
        for (rows, width, size) in [(0, 3, 2), (1, 0, 1), (1, 10, 3), (3, 5, 2), (2, 4, 9)] {
            let mut out = vec![0.0; rows * width];
            pieces(&mut out, width, size, |start, piece| {
                assert!(piece.len() <= size && start % width % size == 0);
                for (i, out) in piece.iter_mut().enumerate() {
                    *out += (start + i) as f32;
                }
            });
            let expected: Vec<f32> = (0..rows * width).map(|i| i as f32).collect();
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn threads_that_sleep_wake_up() {
        for _ in 0..20 {
            thread::sleep(AWAKE * 5);
            count(8);
        }
    }

    #[test]
    fn tasks_may_have_tasks() {
        let sum = AtomicUsize::new(0);
        each(5, |_| {
            each(7, |inner| {
                sum.fetch_add(inner, SeqCst);
            });
        });
        assert_eq!(sum.load(SeqCst), 5 * 21);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_next_work_is_done() {
        for _ in 0..100 {
            let caught = catch_unwind(|| each(6, |task| assert!(task != 3, "the third")));
            let panic = caught.expect_err("a task panics");
            assert!(
                panic
                    .downcast_ref::<&str>()
                    .is_some_and(|text| text.contains("third"))
            );
            count(6);
        }
    }
}
