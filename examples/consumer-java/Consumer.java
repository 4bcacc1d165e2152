import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.errors.WakeupException;
import org.apache.kafka.common.header.Header;

/**
 * Books captured payments exactly once, as ../consumer does in Go: the ledger is keyed by
 * ce_id and is on disk before the offset is committed. Needs kafka-clients and jackson-databind:
 *
 *   java -cp "jars/*" Consumer.java 127.0.0.1:9092 webhooks.stripe,webhooks.liqpay ledger.ndjson
 */
public final class Consumer {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final Set<String> booked = new HashSet<>();

    public static void main(String[] args) throws Exception {
        if (args.length != 3) {
            System.err.println("usage: Consumer BROKERS TOPICS LEDGER");
            System.exit(2);
        }
        Properties p = new Properties();
        p.put("bootstrap.servers", args[0]);
        p.put("group.id", "bookkeeping-java");
        p.put("enable.auto.commit", "false"); // committed by hand, after the ledger
        p.put("session.timeout.ms", "10000"); // how long a dead member's partitions wait for another
        p.put("auto.offset.reset", "earliest");
        p.put("key.deserializer", "org.apache.kafka.common.serialization.StringDeserializer");
        p.put("value.deserializer", "org.apache.kafka.common.serialization.ByteArrayDeserializer");
        try (RandomAccessFile ledger = open(args[2]); KafkaConsumer<String, byte[]> consumer = new KafkaConsumer<>(p)) {
            Thread main = Thread.currentThread();
            Runtime.getRuntime().addShutdownHook(new Thread(() -> {
                consumer.wakeup();
                try {
                    main.join(5000);
                } catch (InterruptedException e) {
                    Thread.currentThread().interrupt();
                }
            }));
            consumer.subscribe(List.of(args[1].split(",")));
            while (true) {
                boolean wrote = false;
                for (ConsumerRecord<String, byte[]> r : consumer.poll(Duration.ofMillis(500))) {
                    wrote |= handle(ledger, r);
                }
                if (wrote) {
                    ledger.getFD().sync();
                }
                consumer.commitSync();
            }
        } catch (WakeupException e) {
            // asked to end; what was not committed comes again
        }
    }

    /** Reads what is booked, and cuts off a last line that a crash left torn. */
    private static RandomAccessFile open(String path) throws IOException {
        RandomAccessFile f = new RandomAccessFile(path, "rw");
        byte[] all = new byte[(int) f.length()];
        f.readFully(all);
        int start = 0;
        for (int i = 0; i < all.length; i++) {
            if (all[i] == '\n') {
                booked.add(JSON.readTree(all, start, i - start).get("ce_id").asText());
                start = i + 1;
            }
        }
        f.setLength(start);
        f.seek(start);
        return f;
    }

    private static String header(ConsumerRecord<String, byte[]> r, String name) {
        Header h = r.headers().lastHeader(name);
        return h == null ? "" : new String(h.value(), StandardCharsets.UTF_8);
    }

    private static boolean handle(RandomAccessFile ledger, ConsumerRecord<String, byte[]> r) throws IOException {
        if (!header(r, "ce_replay").isEmpty() || !header(r, "ce_type").equals("payment.captured")) {
            return false;
        }
        JsonNode e = JSON.readTree(r.value());
        JsonNode amount = e.path("payment").path("amount");
        String id = header(r, "ce_id");
        if (e.path("needs_fetch").asBoolean() || amount.isMissingNode() || amount.isNull()) {
            System.err.println(id + ": ask " + e.path("provider").asText() + " before booking it");
            return false;
        }
        if (!booked.add(id)) {
            return false;
        }
        String line = JSON.writeValueAsString(Map.of("ce_id", id, "provider", e.path("provider").asText(),
            "order_id", e.path("payment").path("order_id").asText(""), "minor", amount.path("minor").asLong(),
            "currency", amount.path("currency").asText())) + "\n";
        ledger.write(line.getBytes(StandardCharsets.UTF_8));
        return true;
    }
}
