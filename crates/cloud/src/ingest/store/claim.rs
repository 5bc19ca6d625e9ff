//! Numbers of a stream whose domain keeps no unique key of its own: readings.
//!
//! `run_stream.taken` holds every number that was given to the domain, and the gateway is locked while its
//! batches are stored ([`super::runs`]), so a number is given once, for ever, even after what it named was
//! packed. The price: that the same number came again with other content cannot be seen here, since what
//! was packed cannot be compared; it counts as a duplicate. It is not `held`, because a number that is
//! held in quarantine must still be takable when it is replayed.

use super::placed::Placed;
use crate::ingest::parse::extend_ranges;
use crate::ingest::streams::Stream;
use sqlx::PgConnection;
use std::collections::BTreeMap;

/// Claims the numbers of these records, which are in the order of their names, and answers for each whether
/// it is new.
pub(super) async fn claim<T: Stream>(
    tx: &mut PgConnection,
    placed: &[Placed<'_, T>],
) -> sqlx::Result<Vec<bool>> {
    if placed.is_empty() {
        return Ok(Vec::new());
    }
    let mut asked: BTreeMap<(i32, i64), Vec<(i64, i64)>> = BTreeMap::new();
    let mut before = None;
    let mut fresh: Vec<bool> = Vec::with_capacity(placed.len());
    for record in placed {
        let name = record.name();
        let (gateway_id, epoch, seq) = name;
        // Twice in one group: the first is the one.
        fresh.push(before.replace(name) != Some(name));
        extend_ranges(asked.entry((gateway_id, epoch)).or_default(), &[seq]);
    }
    let ranges: Vec<((i32, i64), (i64, i64))> = asked
        .into_iter()
        .flat_map(|(run, ranges)| ranges.into_iter().map(move |range| (run, range)))
        .collect();
    let rows = sqlx::query!(
        r#"with asked as (
               select gateway_id, epoch, range_agg(int8range(first, last, '[]')) as numbers
               from unnest($1::int[], $2::bigint[], $3::bigint[], $4::bigint[]) as k (gateway_id, epoch, first, last)
               group by gateway_id, epoch order by gateway_id, epoch
           ), taken as (
               insert into run_stream (gateway_id, epoch, stream, held, taken)
               select gateway_id, epoch, $5, '{}', numbers from asked
               on conflict on constraint run_stream_pk do update set taken = run_stream.taken + excluded.taken
           )
           -- A statement sees what was there before it.
           select a.gateway_id as "gateway_id!", a.epoch as "epoch!", lower(r) as "first!", upper(r) - 1 as "last!"
           from asked a
           join run_stream s on (s.gateway_id, s.epoch, s.stream) = (a.gateway_id, a.epoch, $5)
           cross join lateral unnest(a.numbers * s.taken) as r"#,
        &ranges.iter().map(|(run, _)| run.0).collect::<Vec<_>>(),
        &ranges.iter().map(|(run, _)| run.1).collect::<Vec<_>>(),
        &ranges.iter().map(|(_, range)| range.0).collect::<Vec<_>>(),
        &ranges.iter().map(|(_, range)| range.1).collect::<Vec<_>>(),
        T::NAME
    )
    .fetch_all(tx)
    .await?;
    for row in rows {
        let (first, last) = ((row.gateway_id, row.epoch, row.first), (row.gateway_id, row.epoch, row.last));
        let begin = placed.partition_point(|record| record.name() < first);
        let end = placed.partition_point(|record| record.name() <= last);
        fresh[begin..end].fill(false);
    }
    Ok(fresh)
}
