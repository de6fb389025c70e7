-- What a month's sales of a work give whom.
CREATE INDEX revenue_event_month ON royalties.revenue_event (work_id, occurred_at);
