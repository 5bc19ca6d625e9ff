-- Who makes a copy holds it by a lease, and no connection while the store is read and written.
alter table data_export add column leased_until timestamptz;
