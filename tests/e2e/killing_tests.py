"""kill -9 at any moment. `tests/e2e/kill_torture` is the long run."""

from killing import Killing


def test_kill9_of_any_node_at_any_moment_restarts_clean(env):
    """Each kind once; with --long, 60 rounds."""
    Killing(env, seed=2).run(60 if env.long else len(Killing.KINDS))
