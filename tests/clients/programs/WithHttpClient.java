// Java's HttpClient: one GET of the URL that it is given.
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Duration;

class WithHttpClient {
    public static void main(String[] arguments) throws Exception {
        var client = HttpClient.newBuilder().connectTimeout(Duration.ofSeconds(30)).build();
        var request = HttpRequest.newBuilder(URI.create(arguments[0]))
                .timeout(Duration.ofSeconds(30))
                .header("Authorization", "Bearer " + System.getenv("API_KEY"))
                .build();
        var answer = client.send(request, HttpResponse.BodyHandlers.ofString());
        System.out.println(answer.statusCode() + " " + answer.headers().map() + " " + answer.body());
        System.exit(answer.statusCode() == 200 ? 0 : 1);
    }
}
