//! When nobody needs the server any more.

use crate::house::House;
use lockkeeper::StatsNow;
use std::{sync::atomic::Ordering, time::Duration};
use tokio::time::Instant;

/// Waits until nothing has happened for so long, and nothing would be lost: no client has a
/// session, a request or a subscription, nothing is held, nobody waits.
pub(crate) async fn idle(house: &House, span: Duration) {
    loop {
        let stirred = house.stirred();
        tokio::time::sleep_until(stirred + span).await;
        if house.stirred() != stirred {
            continue;
        }
        if !is_in_use(house).await && house.stirred() == stirred {
            return;
        }
        // What ends the use is heard: a lease that ends, a session, a connection.
        house.wants_stir.store(true, Ordering::SeqCst);
        if house.stirred() == stirred {
            house.stir.notified().await;
        }
        house.wants_stir.store(false, Ordering::SeqCst);
        // A stir in the same millisecond as the last one would not be seen as one.
        if house.stirred() == stirred {
            tokio::time::sleep_until(Instant::now() + Duration::from_millis(1)).await;
            house.stir();
        }
    }
}

async fn is_in_use(house: &House) -> bool {
    if house.is_needed() || house.ends.are_pending() {
        return true;
    }
    for room in house.open_rooms() {
        if room.has_attached() {
            return true;
        }
        match room.project.see(StatsNow {}).await {
            Ok(stats) if stats.holds + stats.tickets == 0 => {}
            // What cannot be looked at may be in use.
            _ => return true,
        }
    }
    false
}
