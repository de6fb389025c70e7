-- The worker of jobs asks the queue four questions whenever it is told that the queue has changed. What tells it is a job
-- that can begin: not one that is planned for later, nor that one has begun, lives or has ended.
DROP TRIGGER tg_pgqueuer_changed ON jobs.pgqueuer;
CREATE TRIGGER tg_pgqueuer_changed AFTER INSERT ON jobs.pgqueuer
FOR EACH ROW WHEN (NEW.execute_after <= now()) EXECUTE FUNCTION jobs.fn_pgqueuer_changed();
CREATE TRIGGER tg_pgqueuer_again AFTER UPDATE ON jobs.pgqueuer
FOR EACH ROW WHEN (OLD.status <> 'queued' AND NEW.status = 'queued' AND NEW.execute_after <= now())
EXECUTE FUNCTION jobs.fn_pgqueuer_changed();
