//! Statements that serve many combinations of filters, planned for each call's own values.
//!
//! PostgreSQL plans a prepared statement five times for what it is asked and then, where that looks as cheap, once
//! for whatever may come. For nearly all statements that halves their cost. One of the kind
//! `$1::text is null or code = $1` it takes for choosy, whatever is asked, and its plan for everything is then one for
//! a handful of rows.

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArguments, PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{Describe, Either, Execute, Executor, Postgres, SqlStr};

/// The way to the database for such statements: `.fetch_all(anew(pool))`. They are not kept prepared.
pub fn anew<'c, E: Executor<'c, Database = Postgres>>(database: E) -> impl Executor<'c, Database = Postgres> {
    Anew(database)
}

#[derive(Debug)]
struct Anew<T>(T);

impl<'q, T: Execute<'q, Postgres>> Execute<'q, Postgres> for Anew<T> {
    fn sql(self) -> SqlStr {
        self.0.sql()
    }

    fn statement(&self) -> Option<&PgStatement> {
        self.0.statement()
    }

    fn take_arguments(&mut self) -> Result<Option<PgArguments>, BoxDynError> {
        self.0.take_arguments()
    }

    fn persistent(&self) -> bool {
        false
    }
}

impl<'c, E: Executor<'c, Database = Postgres>> Executor<'c> for Anew<E> {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, Q>(
        self,
        query: Q,
    ) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, sqlx::Error>>
    where
        'c: 'e,
        Q: 'q + Execute<'q, Postgres>,
    {
        self.0.fetch_many(Anew(query))
    }

    fn fetch_optional<'e, 'q: 'e, Q>(self, query: Q) -> BoxFuture<'e, Result<Option<PgRow>, sqlx::Error>>
    where
        'c: 'e,
        Q: 'q + Execute<'q, Postgres>,
    {
        self.0.fetch_optional(Anew(query))
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, sqlx::Error>>
    where
        'c: 'e,
    {
        self.0.prepare_with(sql, parameters)
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, sqlx::Error>>
    where
        'c: 'e,
    {
        self.0.describe(sql)
    }
}
