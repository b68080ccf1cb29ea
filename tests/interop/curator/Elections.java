// Leader election, groups and nodes that are kept alive.

import java.time.Duration;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.recipes.leader.LeaderLatch;
import org.apache.curator.framework.recipes.leader.LeaderSelector;
import org.apache.curator.framework.recipes.leader.LeaderSelectorListenerAdapter;
import org.apache.curator.framework.recipes.nodes.GroupMember;
import org.apache.curator.framework.recipes.nodes.PersistentNode;
import org.apache.curator.framework.recipes.nodes.PersistentTtlNode;
import org.apache.zookeeper.CreateMode;

final class Elections {
    static void addTo(Map<String, Main.Recipe> recipes) {
        recipes.put("leader latch", Elections::latch);
        recipes.put("leader selector", Elections::selector);
        recipes.put("group member", Elections::group);
        recipes.put("persistent node", Elections::persistentNode);
        recipes.put("persistent ttl node", Elections::ttlNode);
    }

    static void latch(Main.Env env, String path) throws Exception {
        LeaderLatch first = new LeaderLatch(env.one, path, "first");
        LeaderLatch second = new LeaderLatch(env.other, path, "second");
        first.start();
        Main.check(first.await(10, TimeUnit.SECONDS), "no leader");
        second.start();
        Main.eventually(() -> second.getParticipants().size() == 2, "both participants");
        Main.same("first", second.getLeader().getId(), "leader");
        Main.check(!second.hasLeadership(), "two leaders");
        first.close();
        Main.check(second.await(10, TimeUnit.SECONDS), "no successor");
        second.close();
    }

    static void selector(Main.Env env, String path) throws Exception {
        AtomicInteger leaders = new AtomicInteger();
        CountDownLatch terms = new CountDownLatch(6);
        LeaderSelectorListenerAdapter listener = new LeaderSelectorListenerAdapter() {
            @Override
            public void takeLeadership(CuratorFramework client) throws Exception {
                Main.same(1, leaders.incrementAndGet(), "leaders");
                terms.countDown();
                Thread.sleep(5);
                leaders.decrementAndGet();
            }
        };
        LeaderSelector one = new LeaderSelector(env.one, path, listener);
        LeaderSelector other = new LeaderSelector(env.other, path, listener);
        one.autoRequeue();
        other.autoRequeue();
        one.start();
        other.start();
        Main.check(terms.await(20, TimeUnit.SECONDS), "leadership did not go round");
        one.close();
        other.close();
    }

    static void group(Main.Env env, String path) throws Exception {
        try (GroupMember one = new GroupMember(env.one, path, "one", "1".getBytes());
                GroupMember other = new GroupMember(env.other, path, "other", "2".getBytes())) {
            one.start();
            other.start();
            Main.eventually(() -> one.getCurrentMembers().size() == 2, "both members");
            other.setThisData("3".getBytes());
            Main.eventually(() -> "3".equals(new String(one.getCurrentMembers().get("other"))),
                    "the new data");
            other.close();
            Main.eventually(() -> one.getCurrentMembers().size() == 1, "the departure");
        }
    }

    static void persistentNode(Main.Env env, String path) throws Exception {
        try (PersistentNode node = new PersistentNode(env.one, CreateMode.EPHEMERAL, false, path,
                "here".getBytes())) {
            node.start();
            Main.check(node.waitForInitialCreate(10, TimeUnit.SECONDS), "created");
            env.other.delete().forPath(path);
            Main.eventually(() -> env.other.checkExists().forPath(path) != null, "its return");
            node.setData("still".getBytes());
            Main.eventually(() -> "still".equals(new String(env.other.getData().forPath(path))),
                    "its data");
        }
        Main.eventually(() -> env.other.checkExists().forPath(path) == null, "its end");
    }

    static void ttlNode(Main.Env env, String path) throws Exception {
        PersistentTtlNode node =
                new PersistentTtlNode(env.one, path, 400, "short".getBytes());
        node.start();
        Main.check(node.waitForInitialCreate(10, TimeUnit.SECONDS), "created");
        long until = System.nanoTime() + Duration.ofMillis(1200).toNanos();
        while (System.nanoTime() < until) {
            Main.check(env.other.checkExists().forPath(path) != null, "it went while refreshed");
            Thread.sleep(50);
        }
        node.close();
        Main.eventually(() -> env.other.checkExists().forPath(path) == null, "its expiry");
    }
}
