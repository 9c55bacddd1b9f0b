"""The suite's own echo server (Python 2), for any port that a client names: one that stands behind a proxy
is asked by the proxy's. The argument is the port."""
import sys

from autobahn.twisted.websocket import listenWS
from autobahntestsuite.testee import TesteeServerFactory
from twisted.internet import reactor

factory = TesteeServerFactory("ws://127.0.0.1:" + sys.argv[1])
factory.externalPort = None
listenWS(factory, interface="127.0.0.1")
reactor.run()
