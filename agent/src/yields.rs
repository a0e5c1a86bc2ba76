//! Letting other tasks have their turn.

use std::future::poll_fn;
use std::task::Poll;

/// Goes to the end of the run queue of this worker: tasks that are ready now run first.
///
/// Unlike [`tokio::task::yield_now`], which also asks the kernel for news first, this costs no system call.
///
/// # Cancel safety
/// Cancel safe.
pub(crate) async fn to_the_end() {
    let mut was_there = false;
    poll_fn(|context| {
        if was_there {
            return Poll::Ready(());
        }
        was_there = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
