"""For tests of programs that use redisq: `pip install 'redisq-tasks[test]'`.

    from redisq.testing import sandbox

    def test_a_question_is_answered():
        with sandbox(app) as box:
            ask(42, "hi")                                   # the code under test calls answer.delay(...)
            box.assert_enqueued(answer, args=(42, "hi"))
            assert box.drain().done == 1                    # runs it, by the real worker

With pytest, the fixture `redisq_sandbox` is there without an import: `box = redisq_sandbox(app)`.
"""

from redisq.testing.calls import Call
from redisq.testing.clock import Clock
from redisq.testing.drain import Drained
from redisq.testing.fake import FakeServer
from redisq.testing.leaks import check_leaks
from redisq.testing.sandbox import Sandbox, sandbox

__all__ = ["Call", "Clock", "Drained", "FakeServer", "Sandbox", "check_leaks", "sandbox"]
